"""A local model: loading, its bounded queue, and steps that nobody waits for."""

import asyncio
import threading

import pytest

from dozen_inference.local import LocalModel, ModelNotInstalled, ModelNotLoaded, ModelOverloaded


class Engine:
    """Counts how far it got; each step waits until it is allowed."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.steps = 0

    def step(self) -> int:
        assert self.allowed.acquire(timeout=10)
        self.steps += 1
        return self.steps


def local_model(engine: Engine, most_requests: int = 2) -> LocalModel[Engine]:
    return LocalModel("test", lambda: engine, packages=["asyncio"], most_requests=most_requests)


async def test_a_model_is_not_ready_before_it_is_loaded() -> None:
    model = local_model(Engine())
    with pytest.raises(ModelNotLoaded):
        await model.ping()
    await model.load()
    await model.ping()
    model.close()


async def test_a_model_without_its_packages_says_so() -> None:
    model = LocalModel("test", Engine, packages=["dozen_no_such_package"], most_requests=1)
    await model.load()
    with pytest.raises(ModelNotInstalled), model.admit():
        pass
    model.close()


async def test_more_requests_than_allowed_are_refused_until_one_ends() -> None:
    model = local_model(Engine(), most_requests=1)
    await model.load()
    with model.admit(), pytest.raises(ModelOverloaded), model.admit():
        pass
    with model.admit():
        pass
    model.close()


async def test_the_event_loop_runs_while_a_step_does() -> None:
    engine = Engine()
    model = local_model(engine)
    await model.load()
    step = asyncio.create_task(model.run(engine.step))
    await asyncio.sleep(0)
    assert not step.done()
    engine.allowed.release()
    assert await step == 1
    model.close()


async def test_no_step_is_begun_for_a_request_that_was_cancelled() -> None:
    engine = Engine()
    model = local_model(engine)
    await model.load()
    first = asyncio.create_task(model.run(engine.step))
    second = asyncio.create_task(model.run(engine.step))
    third = asyncio.create_task(model.run(engine.step))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait((second,))
    engine.allowed.release()
    engine.allowed.release()
    assert await first == 1
    assert await third == 2
    assert second.cancelled()
    model.close()


async def test_an_iterator_is_followed_to_its_end() -> None:
    model = local_model(Engine())
    assert [item async for item in model.iterate(iter([1, None, 3]))] == [1, None, 3]
    model.close()
