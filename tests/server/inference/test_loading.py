"""Loading for the server: as the settings say, and ended with it."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fixtures.checkpoints import Size, write_checkpoint
from florence2.engine import engine as engine_module
from florence2.errors import EngineClosed, Florence2Error
from florence2.model import TextConfig, VisionConfig
from florence2.server.inference.loading import EngineLoader
from florence2.server.settings import Settings
from tests.server.process import start_server, tiny_checkpoint

PATIENCE_S = 60.0


def test_an_engine_as_the_settings_say() -> None:
    engine = EngineLoader(Settings(device="cpu", precision="bf16"))(str(tiny_checkpoint()))
    assert engine.precision == "bf16"
    engine.close()


def test_stopping_ends_what_is_loaded_and_refuses_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = threading.Event()

    def load_for_ever(*_: object, **__: object) -> None:
        entered.set()
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(engine_module, "load_here", load_for_ever)
    loader = EngineLoader(Settings())
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(loader, "florence-2-demo")
        assert entered.wait(PATIENCE_S)
        loader.stop()
        with pytest.raises(EngineClosed):
            loading.result(PATIENCE_S)
    with pytest.raises(Florence2Error, match="shutting down"):
        loader("florence-2-demo")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_while_it_loads_ends_well(tmp_path: Path, number: int) -> None:
    size = Size(VisionConfig(depths=(1, 1, 1, 1)), TextConfig(encoder_layers=2, decoder_layers=2), 768)
    slow = write_checkpoint(tmp_path, size=size)
    for delay_s in (0.0, 0.5, 1.0):
        server = start_server(wait_until_ready=False, model=str(slow))
        try:
            time.sleep(delay_s)
            server.process.send_signal(number)
        finally:
            code = server.wait()
        assert code == 0, server.log
        assert "Traceback" not in server.log
        assert "terminate called" not in server.log
