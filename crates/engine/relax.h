// Included before ggml-cpu.c on x86-64 (see build.rs).
//
// ggml's compute threads wait for each other hundreds of times per token, and they wait by spinning. That is right
// while every thread has a core of its own. When several share a core, the thread that is waited for may itself be
// waiting for the core that the spinning one holds until its time slice ends, and a token takes seconds. So a wait that
// takes much longer than threads that all run ever need gives its core away.
//
// A wait is told from the work between two waits by the time stamp counter. Counting pauses over several waits, and
// giving the core away in the middle of a short one, would hand whole time slices to any other busy program.
#include <immintrin.h>
#include <sched.h>
#include <x86intrin.h>

// In time stamp ticks, 2 to 4 to the nanosecond: a gap that means work was done between two pauses (0.5 us), and the
// longest a wait spins (some 100 us).
#define HEARTH_WORKED 1500
#define HEARTH_PATIENCE 300000

static inline void hearth_relax(void) {
    static _Thread_local unsigned long long since, last;
    _mm_pause();
    unsigned long long now = __rdtsc();
    if (now - last > HEARTH_WORKED) {
        since = now;
    } else if (now - since > HEARTH_PATIENCE) {
        sched_yield();
        now = __rdtsc();
    }
    last = now;
}

#define _mm_pause hearth_relax
