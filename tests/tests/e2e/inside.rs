//! What a guest does to its own agent: scripts for a shell in it.

/// The agent stands still, process 1 as well as one beside an image's init: by the freezer of a cgroup, since nothing
/// else can stop process 1.
pub(crate) const FREEZE: &str = "\
    ice=/sys/fs/cgroup/banger/agent; \
    if [ ! -d $ice ]; then ice=/sys/fs/cgroup/ice; mkdir -p $ice; echo 1 > $ice/cgroup.procs; fi; \
    echo 1 > $ice/cgroup.freeze";
