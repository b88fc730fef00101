"""Models with training of their own, as the guides of Keras have them."""

import keras
import tensorflow as tf

L = keras.layers


@keras.saving.register_keras_serializable(package="msq_tf_tests")
class Sampling(L.Layer):
    """Draws a code of a normal distribution."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, inputs):
        mean, log_variance = inputs
        noise = keras.random.normal(
            keras.ops.shape(mean), seed=self.seed_generator
        )
        return mean + keras.ops.exp(0.5 * log_variance) * noise


@keras.saving.register_keras_serializable(package="msq_tf_tests")
class VAE(keras.Model):
    """A variational autoencoder: a step and trackers, no `call`."""

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.total_loss_tracker = keras.metrics.Mean(name="total_loss")
        self.kl_loss_tracker = keras.metrics.Mean(name="kl_loss")

    @property
    def metrics(self):
        return [self.total_loss_tracker, self.kl_loss_tracker]

    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, log_variance, code = self.encoder(data)
            reconstruction = self.decoder(code)
            loss = keras.ops.mean(keras.ops.square(data - reconstruction))
            kl = -0.5 * keras.ops.mean(
                1 + log_variance - mean**2 - keras.ops.exp(log_variance)
            )
            total = loss + kl
        grads = tape.gradient(total, self.trainable_weights)
        self.optimizer.apply_gradients(
            zip(grads, self.trainable_weights, strict=True)
        )
        self.total_loss_tracker.update_state(total)
        self.kl_loss_tracker.update_state(kl)
        return {
            "loss": self.total_loss_tracker.result(),
            "kl_loss": self.kl_loss_tracker.result(),
        }

    def get_config(self):
        return {"encoder": self.encoder, "decoder": self.decoder}

    @classmethod
    def from_config(cls, config):
        parts = map(
            keras.saving.deserialize_keras_object,
            (config["encoder"], config["decoder"]),
        )
        return cls(*parts)


def vae():
    """A built VAE of vectors of 8."""
    inputs = keras.Input((8,))
    x = L.Dense(6, activation="relu", name="hidden")(inputs)
    mean = L.Dense(2, name="mean")(x)
    log_variance = L.Dense(2, name="log_variance")(x)
    code = Sampling()([mean, log_variance])
    encoder = keras.Model(inputs, [mean, log_variance, code], name="encoder")
    decoder = keras.Sequential(
        [keras.Input((2,)), L.Dense(6, activation="relu"), L.Dense(8)],
        name="decoder",
    )
    return VAE(encoder, decoder)


@keras.saving.register_keras_serializable(package="msq_tf_tests")
class GAN(keras.Model):
    """Two networks, two optimizers, and a `compile` that takes them."""

    def __init__(self, discriminator, generator, **kwargs):
        super().__init__(**kwargs)
        self.discriminator = discriminator
        self.generator = generator
        self.seed_generator = keras.random.SeedGenerator(1337)

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile()
        self.d_optimizer = d_optimizer
        self.g_optimizer = g_optimizer
        self.loss_fn = loss_fn
        self.d_loss_metric = keras.metrics.Mean(name="d_loss")
        self.g_loss_metric = keras.metrics.Mean(name="g_loss")

    @property
    def metrics(self):
        return [self.d_loss_metric, self.g_loss_metric]

    def train_step(self, real):
        count = keras.ops.shape(real)[0]
        noise = keras.random.normal((count, 3), seed=self.seed_generator)
        both = keras.ops.concatenate([self.generator(noise), real], axis=0)
        labels = keras.ops.concatenate(
            [keras.ops.ones((count, 1)), keras.ops.zeros((count, 1))], axis=0
        )
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(labels, self.discriminator(both))
        weights = self.discriminator.trainable_weights
        grads = tape.gradient(d_loss, weights)
        self.d_optimizer.apply_gradients(zip(grads, weights, strict=True))

        noise = keras.random.normal((count, 3), seed=self.seed_generator)
        with tf.GradientTape() as tape:
            predictions = self.discriminator(self.generator(noise))
            g_loss = self.loss_fn(keras.ops.zeros((count, 1)), predictions)
        weights = self.generator.trainable_weights
        grads = tape.gradient(g_loss, weights)
        self.g_optimizer.apply_gradients(zip(grads, weights, strict=True))
        self.d_loss_metric.update_state(d_loss)
        self.g_loss_metric.update_state(g_loss)
        return {
            "d_loss": self.d_loss_metric.result(),
            "g_loss": self.g_loss_metric.result(),
        }

    def get_config(self):
        return {
            "discriminator": self.discriminator,
            "generator": self.generator,
        }

    @classmethod
    def from_config(cls, config):
        parts = map(
            keras.saving.deserialize_keras_object,
            (config["discriminator"], config["generator"]),
        )
        return cls(*parts)


def gan():
    """A built GAN of vectors of 8."""
    discriminator = keras.Sequential(
        [keras.Input((8,)), L.Dense(6, activation="relu"), L.Dense(1)],
        name="discriminator",
    )
    generator = keras.Sequential(
        [keras.Input((3,)), L.Dense(6, activation="relu"), L.Dense(8)],
        name="generator",
    )
    return GAN(discriminator, generator)


class Siamese(keras.Model):
    """A triplet loss over distances, in steps of its own."""

    def __init__(self, network, margin):
        super().__init__()
        self.network = network
        self.margin = margin
        self.loss_tracker = keras.metrics.Mean(name="loss")

    def call(self, inputs):
        return self.network(inputs)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self._compute_loss(data)
        weights = self.network.trainable_weights
        grads = tape.gradient(loss, weights)
        self.optimizer.apply_gradients(zip(grads, weights, strict=True))
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    def test_step(self, data):
        self.loss_tracker.update_state(self._compute_loss(data))
        return {"loss": self.loss_tracker.result()}

    def _compute_loss(self, data):
        near, far = self.network(data)
        return tf.reduce_mean(tf.maximum(near - far + self.margin, 0.0))

    @property
    def metrics(self):
        return [self.loss_tracker]


def siamese(margin):
    """A built network of triplets of vectors of 8."""
    embedding = keras.Sequential(
        [keras.Input((8,)), L.Dense(6, activation="relu"), L.Dense(4)],
        name="embedding",
    )
    triplet = [keras.Input((8,), name=name) for name in "apn"]
    anchor, positive, negative = map(embedding, triplet)

    def distance(other):
        return keras.ops.sum(keras.ops.square(anchor - other), -1)

    network = keras.Model(triplet, [distance(positive), distance(negative)])
    return Siamese(network, margin)


class Distiller(keras.Model):
    """A student that learns from a teacher, by `compute_loss`."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.built = True

    def compile(self, optimizer, metrics, student_loss_fn, alpha=0.1):
        super().compile(optimizer=optimizer, metrics=metrics)
        self.student_loss_fn = student_loss_fn
        self.distillation_loss_fn = keras.losses.KLDivergence()
        self.alpha = alpha

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, allow_empty=False
    ):
        teacher = keras.ops.softmax(self.teacher(x, training=False))
        student_loss = self.student_loss_fn(y, y_pred)
        distilled = self.distillation_loss_fn(
            teacher, keras.ops.softmax(y_pred)
        )
        return self.alpha * student_loss + (1 - self.alpha) * distilled

    def call(self, x):
        return self.student(x)


def distiller():
    """A built pair of classifiers of vectors of 8."""

    def classifier(width, name):
        return keras.Sequential(
            [keras.Input((8,)), L.Dense(width, activation="relu"), L.Dense(3)],
            name=name,
        )

    return Distiller(classifier(6, "student"), classifier(12, "teacher"))
