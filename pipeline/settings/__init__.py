"""All settings, read once: connections and secrets from the environment (`Settings`); providers,
routes and policies from one YAML file (`Config`)."""

from pipeline.settings.config import (
    Config,
    DispatchLimits,
    check_config,
    load_config,
    sample_path,
)
from pipeline.settings.environment import Settings, load_settings

__all__ = [
    "Config",
    "DispatchLimits",
    "Settings",
    "check_config",
    "load_config",
    "load_settings",
    "sample_path",
]
