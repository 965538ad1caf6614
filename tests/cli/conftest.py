import pytest

from longclip_diffusers.cli import longgen


@pytest.fixture
def run_longgen(tmp_path, monkeypatch, capsys):
    """Runs longgen in an empty folder, offline; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def run(*arguments):
        try:
            code = longgen.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
