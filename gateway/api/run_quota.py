"""What one user may have at once, where settings limit that: a start beyond it is refused, and nothing is stored."""

from __future__ import annotations

from gateway.api.call import Call
from gateway.api.errors import ActorMemoryLimitExceeded, ConcurrentRunsLimitExceeded
from gateway.core.model import Run


async def refuse_beyond_quota(call: Call, run: Run) -> None:
    """
    All live runs of the user count, those of standby Actors too, whether used or not; of memory also his builds.

    Two starts in the same moment may both see room for one. Raises ActorMemoryLimitExceeded,
    ConcurrentRunsLimitExceeded.
    """
    settings = call.services.settings
    max_runs, max_mbytes = settings.max_runs_per_user, settings.max_memory_mbytes_per_user
    if not max_runs and not max_mbytes:
        return
    own = [live for live in await call.records.active_runs() if live.user_id == run.user_id]
    if max_runs and len(own) >= max_runs:
        raise ConcurrentRunsLimitExceeded(
            f"{len(own)} runs of yours live already, and {max_runs} may (setting: max_runs_per_user). Wait until one "
            "ends, or abort one.",
            data={"liveRuns": len(own), "maxRuns": max_runs},
        )
    if not max_mbytes:
        return
    used = sum(live.options.memory_mbytes for live in own)
    if call.services.builder.makes_images:
        builds = [build for build in await call.records.active_builds() if build.user_id == run.user_id]
        used += settings.build_memory_mbytes * min(len(builds), settings.max_builds)
    wanted = run.options.memory_mbytes
    if used + wanted > max_mbytes:
        raise ActorMemoryLimitExceeded(
            f"This run takes {wanted} MB of memory beside {used} MB that you use already, and {max_mbytes} MB may be "
            "used (setting: max_memory_mbytes_per_user). Wait until a run ends, abort one, or start it with less "
            "memory.",
            data={"usedMbytes": used, "wantedMbytes": wanted, "maxMbytes": max_mbytes},
        )
