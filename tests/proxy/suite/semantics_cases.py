"""All scenes, collected."""

from __future__ import annotations

import proxy.suite.semantics_access
import proxy.suite.semantics_answers
import proxy.suite.semantics_bodies
import proxy.suite.semantics_connections
import proxy.suite.semantics_ends
import proxy.suite.semantics_requests  # noqa: F401 - each adds its scenes
from proxy.suite.scenes import SCENES

ALL_SCENES = tuple(SCENES.values())
