"""Stands for `vllm.distributed`."""

CLEANED: list[bool] = []


def cleanup_dist_env_and_memory() -> None:
    CLEANED.append(True)
