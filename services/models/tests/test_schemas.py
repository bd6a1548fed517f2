"""The seed file: what is read from it, and how its faults are told."""

from pathlib import Path

import pytest

from dozen_local.catalogue import write_catalogue
from dozen_models.domain.catalogue import Deployment, ModelCard, Offer, Upstream
from dozen_models.errors import InvalidSeed
from dozen_models.schemas.seed import parse_seed

SEED = """
models:
  - id: acme/llama
    owned_by: acme
    capabilities: [chat]
    context_length: 2048
    prices: {input_tokens: 150, output_tokens: 600}
    deployments:
      - id: second
        service: chat
        address: http://b:8080/
        health_url: http://b:8081/health
        priority: 2
        weight: 1
      - id: first
        service: chat
        address: http://a:8080
        health_url: http://a:8081/health
        priority: 1
        weight: 1
"""


def test_a_seed_is_read_with_the_deployment_to_try_first_in_front() -> None:
    deployments = (
        Deployment("first", "chat", "http://a:8080", "http://a:8081/health", 1, 1),
        Deployment("second", "chat", "http://b:8080", "http://b:8081/health", 2, 1),
    )
    card = ModelCard("acme/llama", "acme", ("chat",), 2048, deployments)
    assert parse_seed(SEED) == [Offer(card, {"input_tokens": 150, "output_tokens": 600})]


REMOTE = """
models:
  - id: acme/claude
    owned_by: acme
    capabilities: [chat]
    context_length: 0
    prices: {input_tokens: 1}
    fallbacks: [acme/llama, acme/other]
    cache_seconds: 3600
    content_filter: true
    deployments:
      - id: remote
        service: chat
        address: http://a:8080
        priority: 1
        weight: 1
        upstream:
          format: anthropic
          url: https://api.example.com/
          model: claude-x
          secret: provider-key
          max_requests: 64
"""
OTHER = SEED.removeprefix("\nmodels:\n")
THIRD = (
    OTHER.replace("acme/llama", "acme/other").replace("- id: f", "- id: f3").replace("- id: s", "- id: s3")
)
SEEDS = REMOTE + OTHER + THIRD


def test_all_of_a_remote_model_is_read() -> None:
    card = parse_seed(SEEDS)[0].card
    assert (card.fallbacks, card.cache_seconds, card.content_filter) == (
        ("acme/llama", "acme/other"),
        3600,
        True,
    )
    (deployment,) = card.deployments
    assert deployment.health_url == ""
    assert deployment.upstream == Upstream(
        "anthropic", "https://api.example.com", "claude-x", "provider-key", 64
    )


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("[acme/llama,", "[acme/absent,", "falls back to acme/absent, which is not there"),
        ("[acme/llama,", "[acme/claude,", "the file: acme/claude falls back to itself"),
        ("[acme/llama,", "[acme/other,", "the file: acme/claude falls back to acme/other more than once"),
        ("[chat]", "[completion]", "the file: acme/claude falls back to acme/llama, which can do nothing"),
        ("[acme/llama,", "[/llama,", "models[acme/claude].fallbacks[0]: String should match pattern"),
        ("3600", "-1", "models[acme/claude].cache_seconds: Input should be greater than or equal to 0"),
        ("3600", "2592001", ".cache_seconds: Input should be less than or equal to 2592000"),
        ("r: true", "r: 'on'", "models[acme/claude].content_filter: Input should be a valid boolean"),
        ("format: anthropic", "format: cohere", ".format: Input should be 'openai', 'anthropic' or 'gemini'"),
        ("https:", "ftp:", ".deployments[remote].upstream.url: URL scheme should be 'http' or 'https'"),
        ("https://", "https://x:y@", ".upstream.url: The URL is published and must not hold"),
        (".com/", ".com/v1/", ".upstream.url: The base URL is without the version: leave out v1"),
        (".com/", ".com/?a=b", ".upstream.url: A base URL has neither a query nor a fragment"),
        ("provider-key", "../key", ".upstream.secret: String should match pattern"),
        ("provider-key", ".key", ".upstream.secret: String should match pattern"),
        ("provider-key", "k" * 65, ".upstream.secret: String should have at most 64 characters"),
        ("max_requests: 64", "max_requests: -1", ".max_requests: Input should be greater than or equal"),
        ("claude-x", "'claude x'", ".upstream.model: String should match pattern"),
        ("priority: 1", "priority: 1001", "[remote].priority: Input should be less than or equal to 1000"),
        ("weight: 1", "weight: 10001", "[remote].weight: Input should be less than or equal to 10000"),
        ("          url: https://api.example.com/\n", "", "[remote].upstream: One that speaks"),
        ("service: chat", "service: completion", "Only chat speaks anthropic; completion speaks openai"),
        ("service: chat", "service: audio", "[remote]: audio has no upstream; only chat and completion have"),
    ],
)  # fmt: skip
def test_a_fault_of_what_is_remote_is_told_with_its_place(old: str, new: str, fault: str) -> None:
    assert old in REMOTE
    with pytest.raises(InvalidSeed) as raised:
        parse_seed(SEEDS.replace(old, new, 1))
    assert fault in raised.value.message


def test_a_secret_is_for_a_url() -> None:
    seed = SEEDS.replace("          url: https://api.example.com/\n", "").replace("anthropic", "openai")
    with pytest.raises(InvalidSeed, match=r"\[remote\]\.upstream: A secret needs a url"):
        parse_seed(seed)


def test_a_circle_of_fallbacks_is_a_fault() -> None:
    circle = THIRD.replace("    deployments:", "    fallbacks: [acme/claude]\n    deployments:")
    with pytest.raises(InvalidSeed, match="in a circle: acme/claude to acme/other to acme/claude"):
        parse_seed(SEEDS.replace(THIRD, circle))


def test_a_seed_may_be_empty() -> None:
    assert parse_seed("models: []") == []


def test_the_catalogue_of_a_local_deployment_is_valid(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "models.yaml", port_offset=0)
    offers = parse_seed((tmp_path / "models.yaml").read_text())
    assert "smollm2-135m-instruct" in [offer.card.id for offer in offers]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("owned_by: acme", "owner: acme", "models[acme/llama].owned_by: Field required"),
        ("owned_by: acme", "owner: acme", "models[acme/llama].owner: Extra inputs are not permitted"),
        ("acme/llama", "../llama", "models[../llama].id: String should match pattern"),
        ("id: acme/llama", "id: 1.5", "models[1.5].id: Input should be a valid string"),
        ("[chat]", "[chess]", "models[acme/llama].capabilities[0]: Input should be 'chat'"),
        ("2048", "'2048'", "models[acme/llama].context_length: Input should be a valid integer"),
        ("150", "1.5", "models[acme/llama].prices.input_tokens: Input should be a valid integer"),
        ("150", "-1", "models[acme/llama].prices.input_tokens: Input should be greater than or equal to 0"),
        ("output_tokens", "tokens", "models[acme/llama].prices.tokens.[key]: Input should be 'input_tokens'"),
        ("priority: 1", "priority: high", "models[acme/llama].deployments[first].priority: Input should be"),
        ("http://a:8080", "a:8080", "models[acme/llama].deployments[first].address: URL scheme should be"),
        ("http://a:8081", "http://x:y@a", "models[acme/llama].deployments[first].health_url: The URL is pub"),
        ("id: first", "id: 'a,b'", "models[acme/llama].deployments[a,b].id: String should match pattern"),
        ("id: first", "id: second", "the file: The deployment id second is there more than once"),
        ("models:", "modells:", "models: Field required"),
        (SEED, "", "the file: Input should be a valid dictionary"),
        ("[chat]", "[chat", "The seed file is not valid YAML"),
    ],
)
def test_a_fault_is_told_with_its_place(old: str, new: str, fault: str) -> None:
    assert old in SEED
    with pytest.raises(InvalidSeed) as raised:
        parse_seed(SEED.replace(old, new))
    assert fault in raised.value.message


def test_a_model_is_there_once() -> None:
    with pytest.raises(InvalidSeed, match="The model id acme/llama is there more than once"):
        parse_seed(SEED + SEED.removeprefix("\nmodels:\n"))


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidSeed) as raised:
        parse_seed(SEED.replace("weight: 1", "weight: -1"))
    assert raised.value.message.count("weight: Input should be greater than or equal to 0") == 2
