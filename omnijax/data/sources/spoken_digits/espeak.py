"""Speech from text: a small ctypes wrapper around the espeak-ng library inside the `espeakng-loader` wheel.

The C interface is documented in espeak-ng's `speak_lib.h` and `espeak_ng.h`.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import shutil
import tempfile
import threading
import weakref

import numpy as np
from jaxtyping import Int16

from omnijax import errors

_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000  # without it a missing voice folder ends the whole process
_PARAMETER_RATE, _PARAMETER_PITCH = 1, 3
_CHARACTERS_UTF8 = 1
_MAX_HOME_BYTES = 120  # the library copies its path into 160 bytes together with the names of files below it

_SPEAKING = threading.Lock()  # the C library's random generator is one for all instances

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def _missing(value: object, rule: str) -> errors.PlatformError:
    fix = "install the wheel with `pip install --force-reinstall espeakng-loader` on a platform that it supports"
    return errors.PlatformError("espeakng-loader", str(value), rule, fix)


class Synthesizer:
    """espeak-ng in synchronous mode.

    The library keeps phases, counters and a random generator in global variables that no call of its own resets.
    Each instance therefore loads its own copy of the library: a new instance starts from the same state in every
    process, and the same sequence of calls gives the same samples. An instance is not for use from several threads at
    once; several instances are. Raises a `PlatformError` if the wheel, its library or its voices are missing or don't
    load here.

    Attributes:
        sample_rate_hz: of the waveforms that `speak` returns.
        variants: names of the English voice variants, sorted.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise _missing("not installed", "the wheel that holds the speech synthesiser must be importable") from error
        library = pathlib.Path(espeakng_loader.get_library_path())
        data = library.parent / "espeak-ng-data"
        self._folder = tempfile.mkdtemp(prefix="espeak-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        try:
            self._library = ctypes.CDLL(shutil.copy(library, self._folder))
        except OSError as error:
            raise _missing(library, f"the wheel must hold a library that loads on this platform ({error})") from error
        self._c_library = ctypes.CDLL(None) if os.name == "posix" else ctypes.CDLL("msvcrt")
        self.variants = tuple(sorted(path.name for path in (data / "voices" / "!v").glob("*") if path.is_file()))
        if not self.variants:
            raise _missing(data, "it must hold the folder voices/!v of voice variants")
        home = data.parent
        if len(os.fsencode(home)) > _MAX_HOME_BYTES:
            home = pathlib.Path(self._folder)
            (home / data.name).symlink_to(data)
        rate_hz = self._library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(home), _INITIALIZE_DONT_EXIT)
        if rate_hz <= 0:
            raise _missing(data, f"espeak_Initialize must find its voices there (it returned {rate_hz})")
        self.sample_rate_hz = int(rate_hz)
        word, address, synth = ctypes.c_uint, ctypes.c_void_p, self._library.espeak_Synth
        synth.argtypes = [ctypes.c_char_p, ctypes.c_size_t, word, ctypes.c_int, word, word, address, address]
        self._library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._chunks: list[np.ndarray] = []
        self._callback = _CALLBACK(self._receive)  # kept alive for as long as the library may call it
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: ctypes._Pointer, count: int, events: int | None) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    def speak(
        self, text: str, variant: str, rate_words_per_minute: int, pitch: int, language: str = "en"
    ) -> Int16[np.ndarray, " samples"]:
        """Speaks a text as a waveform at `sample_rate_hz`; see the class for what repeats exactly.

        Args:
            text: of any length.
            variant: one of `variants`.
            rate_words_per_minute: 80 to 450.
            pitch: 0 to 100; 50 is the variant's own pitch.
            language: code of one of espeak-ng's languages.

        Raises:
            DataError: the library doesn't know the variant or refuses the text.
        """
        if variant not in self.variants:  # the library itself would go on with another voice
            rule = "it must be a variant of `espeak.Synthesizer().variants`"
            raise errors.DataError("voice", variant, rule, "use one")
        library, encoded = self._library, text.encode()
        with _SPEAKING:
            # The breath noise of some voices comes from the library's own generator (which else starts from the
            # clock), that of others from the C library's.
            library.espeak_ng_SetRandSeed(1)
            self._c_library.srand(1)
            status = library.espeak_SetVoiceByName(f"{language}+{variant}".encode())
            library.espeak_SetParameter(_PARAMETER_RATE, rate_words_per_minute, 0)
            library.espeak_SetParameter(_PARAMETER_PITCH, pitch, 0)
            self._chunks.clear()
            status = status or library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _CHARACTERS_UTF8, None, None)
            status = status or library.espeak_Synchronize()
        if status:
            rule, fix = f"espeak-ng must speak with it (status {status})", "reinstall the wheel espeakng-loader"
            raise errors.DataError("voice", f"{language}+{variant}", rule, fix)
        return np.concatenate([np.zeros(0, np.int16), *self._chunks])
