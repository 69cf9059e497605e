"""Hooks: when things happen."""

from kd_det.hooks.class_center_hook import ClassCenterHook

__all__ = ["ClassCenterHook"]
