"""All formats, by the name that the catalogue of models has for them."""

from collections.abc import Mapping

from dozen_inference.formats.anthropic.format import AnthropicFormat
from dozen_inference.formats.gemini.format import GeminiFormat
from dozen_inference.formats.openai import OpenAiFormat
from dozen_inference.formats.wire import Format

FORMATS: Mapping[str, Format] = {
    "": OpenAiFormat(),
    "openai": OpenAiFormat(),
    "anthropic": AnthropicFormat(),
    "gemini": GeminiFormat(),
}
"""Empty is the format of those who say nothing of it."""
