// Copyright (c) the Convoy contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
//
// Loaded before libc (LD_PRELOAD), it sets the clock of a program and its children, and of nobody else: by as many
// seconds as the file says that STEPPED_CLOCK names. The monotonic clock goes on, as it does when a real clock is set;
// libfaketime cannot do that without breaking Python's sleep.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t step(void)
{
    char text[32] = "";
    const char *path = getenv("STEPPED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        ssize_t length = read(file, text, sizeof text - 1);
        text[length > 0 ? length : 0] = 0;
        close(file);
    }
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*original)(clockid_t, struct timespec *);
    if (!original)
        original = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = original(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += step();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    static int (*original)(struct timeval *restrict, void *restrict);
    if (!original)
        original = dlsym(RTLD_NEXT, "gettimeofday");
    int failed = original(now, zone);
    if (!failed)
        now->tv_sec += step();
    return failed;
}

time_t time(time_t *now)
{
    struct timespec exactly;
    clock_gettime(CLOCK_REALTIME, &exactly);
    if (now)
        *now = exactly.tv_sec;
    return exactly.tv_sec;
}
