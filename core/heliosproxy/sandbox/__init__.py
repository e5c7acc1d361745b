"""The sandbox: plugins as WebAssembly components, each in an instance of its own, bounded in memory and time."""

from heliosproxy.sandbox.faults import LoadError, PluginFault, Problem
from heliosproxy.sandbox.instance import Limits
from heliosproxy.sandbox.plugin import HookStatistics, Plugin, PluginStatistics
from heliosproxy.sandbox.sandbox import BUNDLED, Found, Sandbox

__all__ = [
    "BUNDLED",
    "Found",
    "HookStatistics",
    "Limits",
    "LoadError",
    "Plugin",
    "PluginFault",
    "PluginStatistics",
    "Problem",
    "Sandbox",
]
