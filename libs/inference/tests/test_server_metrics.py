"""The load that inference servers tell."""

from dozen_inference.server_metrics import ServerLoad, read_load

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="acme/tiny {x} 1"} 3.0
vllm:num_requests_running{engine="1",model_name="acme/tiny"} 2.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 4.0
vllm:num_requests_waiting{engine="1",model_name="tiny"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.75 1700000000000
vllm:generation_tokens_total{engine="0",model_name="tiny"} 1.0e+06
"""
LLAMA = b"""# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 2
"""


def test_the_engines_of_vllm_add_up_and_the_fullest_cache_counts() -> None:
    assert read_load(VLLM) == ServerLoad(5, 4, 0.75)


def test_llama_cpp_has_other_names_and_does_not_tell_of_its_cache() -> None:
    assert read_load(LLAMA) == ServerLoad(1, 2, None)


def test_older_names_of_the_cache_are_known() -> None:
    assert read_load(b"vllm:gpu_cache_usage_perc 0.5\n").kv_cache_usage == 0.5
    assert read_load(b"llamacpp:kv_cache_usage_ratio 1.5\n").kv_cache_usage == 1.0


def test_what_is_no_load_is_none() -> None:
    assert read_load(b"") == ServerLoad()
    assert read_load(b"<html>\xff 404</html>") == ServerLoad()
    assert read_load(b"vllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf") == ServerLoad()
    assert read_load(b"vllm:num_requests_running many\nvllm:kv_cache_usage_perc -1") == ServerLoad()
