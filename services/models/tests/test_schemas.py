"""The seed file: what is read from it, and how its faults are told."""

from pathlib import Path

import pytest

from dozen_local.catalogue import write_catalogue
from dozen_models.domain import Deployment, ModelCard, Offer
from dozen_models.errors import InvalidSeed
from dozen_models.schemas import parse_seed

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
