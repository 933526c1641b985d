/* Loaded before libc: CLOCK_REALTIME is off by as many seconds as stand in the file that CLOCK_FILE names; they may change. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *at)
{
    int result = syscall(SYS_clock_gettime, id, at);
    const char *name = getenv("CLOCK_FILE");
    if (result == 0 && id == CLOCK_REALTIME && name) {
        char text[32] = { 0 };
        int file = open(name, O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            if (read(file, text, sizeof text - 1) > 0)
                at->tv_sec += atol(text);
            close(file);
        }
    }
    return result;
}
