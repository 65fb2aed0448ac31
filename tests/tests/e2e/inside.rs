//! What a guest does to its own agent: scripts for a shell in it.

/// The agent stands still, process 1 as well as one beside an image's init: by the freezer of a cgroup, since nothing
/// else can stop process 1.
pub(crate) const FREEZE: &str = "\
    ice=/sys/fs/cgroup/banger/agent; \
    if [ ! -d $ice ]; then ice=/sys/fs/cgroup/ice; mkdir -p $ice; echo 1 > $ice/cgroup.procs; fi; \
    echo 1 > $ice/cgroup.freeze";

/// The agent goes on.
pub(crate) const THAW: &str = "echo 0 > $ice/cgroup.freeze";

/// The agent that is process 1 crashes, whereupon its kernel panics: its program is overwritten in its memory, since no
/// signal from inside ends process 1.
pub(crate) const CRASH: &str = "\
    text=$(sed -n '/r-xp/{s/-.*//;p;q}' /proc/1/maps); \
    dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$((0x$text / 4096)) count=4096 conv=notrunc";

/// The kernel panics.
pub(crate) const PANIC: &str = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger";
