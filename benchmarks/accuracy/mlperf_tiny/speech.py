"""Spoken words and their MFCCs, for keyword spotting.

The recordings of Speech Commands are not at hand. eSpeak NG, a speech
synthesizer (package `espeak-ng` of Debian), speaks the words in many voices;
those of the test do not speak in training. The network takes these for words:
the table says how many of them it knows.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave

import numpy as np
import tensorflow as tf

from benchmarks.accuracy.mlperf_tiny.inputs import Inputs

PROGRAM = "espeak-ng"
RATE = 16000
# In the order of the network's classes; then silence and other words.
WORDS = (
    *("down", "go", "left", "no", "off"),
    *("on", "right", "stop", "up", "yes"),
)
SILENCE, OTHER = len(WORDS), len(WORDS) + 1
_OTHERS = (
    *("backward", "bed", "bird", "cat", "dog", "eight", "five", "follow"),
    *("forward", "four", "happy", "house", "learn", "marvin", "nine", "one"),
    *(
        "seven",
        "sheila",
        "six",
        "three",
        "tree",
        "two",
        "visual",
        "wow",
        "zero",
    ),
)
_ACCENTS = (
    *("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029"),
    *("en-gb-x-gbclan", "en-us-nyc"),
)
_TRAINED = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "f1", "f2", "f3", "f4", "Alex"),
    *("Andy", "Annie", "Denis", "Lee", "linda", "steph", "max", "rob"),
)
_TESTED = (
    *("m7", "m8", "f5", "Michael", "robert", "belinda", "travis", "victor"),
    *("zac", "david"),
)
TRAIN, CHOOSE, TEST = 20000, 2000, 2000


def missing() -> str:
    """Why there are no words here; empty when there are."""
    if shutil.which(PROGRAM) is None:
        return f"{PROGRAM} is not installed"
    return ""


def version() -> str:
    """What the synthesizer says of itself, without where its data is."""
    done = subprocess.run(
        [PROGRAM, "--version"], check=True, capture_output=True, text=True
    )
    return done.stdout.partition("Data")[0].strip()


def spoken(word: str, voice: str, rng: np.random.Generator) -> np.ndarray:
    """A word at 16 kHz, without the silence around it, at most 1.0 loud."""
    done = subprocess.run(
        [
            *(PROGRAM, "--stdout", "-v", voice),
            *("-s", str(rng.integers(110, 220))),
            *("-p", str(rng.integers(20, 85)), word),
        ],
        check=True,
        capture_output=True,
    )
    with wave.open(io.BytesIO(done.stdout)) as file:
        rate = file.getframerate()
        # Its header is written before the length is known.
        data = file.readframes(len(done.stdout))
    sound = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(float)
    sound = at_rate(sound, rate, RATE)
    loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max())
    sound = sound[loud[0] : loud[-1] + 1]
    return sound / np.abs(sound).max()


def at_rate(sound: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """A sound at a lower sampling rate, by its spectrum."""
    count = len(sound) * wanted // rate
    spectrum = np.fft.rfft(sound)[: count // 2 + 1]
    return np.fft.irfft(spectrum, count) * (count / len(sound))


def clip(word: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A second with a word somewhere in it, and noise.

    Args:
        word: A sound at 16 kHz; an empty one for silence.
        rng: Chooses the place, and how loud the noise is.
    """
    second = np.zeros(RATE)
    word = word[: RATE - 500]
    begin = rng.integers(0, RATE - len(word) + 1)
    second[begin : begin + len(word)] = word
    second += rng.normal(size=RATE) * 10.0 ** rng.uniform(-4.0, -1.5)
    return second / second.max()


def mfccs(seconds: np.ndarray) -> np.ndarray:
    """Ten MFCCs of frames of 30 ms every 20 ms, as in the reference.

    Args:
        seconds: Sounds `(sounds, RATE)`.

    Returns:
        Features `(sounds, 49, 10, 1)`, float32.
    """
    frames = tf.signal.stft(seconds.astype(np.float32), 480, 320)
    bands = tf.signal.linear_to_mel_weight_matrix(40, 257, RATE, 20.0, 4000.0)
    energies = tf.math.log(tf.matmul(tf.abs(frames), bands) + 1e-6)
    found = tf.signal.mfccs_from_log_mel_spectrograms(energies)[..., :10]
    return found.numpy()[..., None]


def _part(
    count: int, voices: tuple[str, ...], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(0, OTHER + 1, count)
    clips = []
    for label in labels:
        voice = f"{rng.choice(_ACCENTS)}+{rng.choice(voices)}"
        sound = np.zeros(0)
        if label != SILENCE:
            word = WORDS[label] if label < SILENCE else rng.choice(_OTHERS)
            sound = spoken(word, voice, rng)
        clips.append(clip(sound, rng))
    return mfccs(np.stack(clips)), labels


def make(seed: int = 0) -> Inputs:
    """Words of all classes alike, with their labels."""
    # Each part stays as it is where another one gets longer.
    train_rng, choose_rng, test_rng = (
        np.random.default_rng((seed, part)) for part in range(3)
    )
    train, _ = _part(TRAIN, _TRAINED, train_rng)
    choose, choose_labels = _part(CHOOSE, _TRAINED, choose_rng)
    test, test_labels = _part(TEST, _TESTED, test_rng)
    return Inputs(train, choose, test, choose_labels, test_labels)
