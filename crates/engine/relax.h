// Included before ggml-cpu.c on x86-64 (see build.rs).
//
// ggml's compute threads wait for each other hundreds of times per token, and they wait by spinning. That is right
// while every thread has a core of its own. When the machine is busy, the thread that is waited for may itself be
// waiting for the core that a spinning one holds until its time slice ends, and a token takes seconds. Giving the core
// away every now and then costs nothing measurable on an idle machine and keeps a busy one answering.
#include <immintrin.h>
#include <sched.h>

static inline void hearth_relax(void) {
    static _Thread_local unsigned spins;
    _mm_pause();
    // About 20 µs: longer than almost every wait of threads that all run.
    if ((++spins & 511) == 0) {
        sched_yield();
    }
}

#define _mm_pause hearth_relax
