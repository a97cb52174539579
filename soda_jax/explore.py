"""A page to play with a trained model: `python -m soda_jax explore`.

One process, one model, this machine alone (127.0.0.1); two browsers take turns, step by step.
"""

import asyncio
import concurrent.futures
import importlib.resources
import itertools
import json
import pathlib
import socket
import urllib.parse
from collections.abc import AsyncIterator, Callable

import ml_collections

from soda_jax import experiment, pretrained
from soda_jax.config_file import ConfigError
from soda_jax.data import images
from soda_jax.playground import InputError, Playground
from soda_jax.uses.common import Studio

HOST = "127.0.0.1"
MAX_BODY = 1 << 16  # bytes of a request to draw
MAX_WAITING = 16  # drawings at a time, of all browsers together


def make_app(playground: Playground):
    """The ASGI application around a playground."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    page = importlib.resources.files("soda_jax").joinpath("explore.html").read_text("utf-8")
    # One thread: the model is used by one at a time, and browsers take turns step by step.
    worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="soda_jax.explore")
    tickets = itertools.count()
    active: set[int] = set()

    async def in_worker(function, *arguments):
        return await asyncio.get_running_loop().run_in_executor(worker, function, *arguments)

    async def body_of(request: Request, limit: int, what: str) -> bytes:
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > limit:
                raise InputError(f"{what} is larger than {limit:,} bytes")
        return bytes(data)

    def refuse_other_sites(request: Request) -> None:
        """A page of somebody else's may be open in the same browser: it has no business here."""
        origin = request.headers.get("origin")
        if origin and urllib.parse.urlsplit(origin).netloc != request.headers["host"]:
            raise InputError("requests from other sites are refused")

    async def is_wanted(request: Request) -> bool:
        """Whether its reader is still there when its turn has come."""
        await in_worker(int)
        return not await request.is_disconnected()

    async def home(request: Request) -> Response:
        return HTMLResponse(page)

    async def setup(request: Request) -> Response:
        return JSONResponse(await in_worker(playground.setup))

    async def upload(request: Request) -> Response:
        refuse_other_sites(request)
        data = await body_of(request, images.MAX_BYTES, "the picture")
        return JSONResponse(await in_worker(playground.upload, data, "the picture"))

    async def draw(request: Request) -> Response:
        refuse_other_sites(request)
        if len(active) >= MAX_WAITING:
            return JSONResponse({"error": "too many drawings at once: wait a moment"}, 503)
        ticket = next(tickets)
        active.add(ticket)
        try:
            data = await body_of(request, MAX_BODY, "the request")
            try:
                asked = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise InputError("the request is not JSON") from error
            drawing = playground.draw(asked)
            # The first part checks the request: what is wrong shows before the stream begins.
            first = await in_worker(next, drawing) if await is_wanted(request) else None
        except BaseException:
            active.discard(ticket)
            raise

        async def lines() -> AsyncIterator[str]:
            part = first
            while part is not None:
                yield json.dumps(part) + "\n"
                part = await in_worker(next, drawing, None)

        return Drawing(lines(), lambda: active.discard(ticket))

    class Drawing(StreamingResponse):
        """A stream that says when it ended, also where its reader went away before it began."""

        def __init__(self, lines: AsyncIterator[str], ended: Callable[[], None]):
            super().__init__(lines, media_type="application/x-ndjson")
            self._ended = ended

        async def __call__(self, scope, receive, send) -> None:
            try:
                await super().__call__(scope, receive, send)
            finally:
                self._ended()

    async def refused(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 400)

    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "that failed; the terminal says why"}, 500)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/setup", setup),
            Route("/upload", upload, methods=["POST"]),
            Route("/draw", draw, methods=["POST"]),
        ],
        # A name of somebody else's that points to this machine is no way in.
        exception_handlers={InputError: refused, Exception: failed},
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
    )


def explore(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Serves the page until it is interrupted; nothing in workdir is written.

    Raises:
      ModuleNotFoundError: starlette or uvicorn is not installed.
      ConfigError: the port can't be had, or the model has no z.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the page is served by starlette and uvicorn: pip install 'soda_jax[explore]'"
        ) from error
    listener = listen(config.explore.port)  # first: what is wrong with it shows at once
    model = pretrained.restore(config, workdir, weights=config.sample.weights)
    model.needs_z("explore")
    with model.parts.config.unlocked():
        model.parts.config.apply.num_images = config.explore.num_images
    train, test = (experiment.open_data(model.parts, split) for split in ("train", "test"))
    playground = Playground(model, Studio(model, train, test, pathlib.Path(workdir)))
    with listener:
        print(f"http://{HOST}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
        server = uvicorn.Server(uvicorn.Config(make_app(playground), log_level="warning"))
        server.run(sockets=[listener])


def listen(port: int) -> socket.socket:
    """A socket on this machine's own address; ConfigError where the port can't be had."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"explore.port = {port}: {error.strerror} (0 finds a free one)"
        ) from error
    return listener
