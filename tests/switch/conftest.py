from tests.switch.stage import stage

__all__ = ["stage"]
