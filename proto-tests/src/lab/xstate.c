/*
 * Lets user-mode Linux 6.1 run on processors whose state is larger than its buffers (AMX: 11,008 bytes, where it keeps 2,696).
 *
 * It reads and writes its processes' registers as the regset NT_X86_XSTATE. A read may be short, a write may not: the kernel answers
 * EFAULT to all but the whole area, and the guest's first process dies with "Attempted to kill init". What was kept is put over the
 * area as it stands and the whole is written; of what lies beyond it a guest's processes use nothing, since the guest grants no AMX.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

static long (*of_libc)(long request, long pid, void *what, void *data);

/* Not on the stack: the guest's kernel calls from stacks of 16 KiB, and from one thread only. */
static char whole[65536];

/* Looked up before the guest has stacks of its own. */
__attribute__((constructor)) static void look_up(void)
{
	of_libc = (long (*)(long, long, void *, void *))dlsym(RTLD_NEXT, "ptrace");
}

static long write_whole(long pid, void *what, const struct iovec *part)
{
	struct iovec area = { .iov_base = whole, .iov_len = sizeof(whole) };
	long answer = of_libc(PTRACE_GETREGSET, pid, what, &area);

	if (answer < 0)
		return answer;
	if (area.iov_len <= part->iov_len) {
		errno = EFAULT;
		return -1;
	}
	memcpy(whole, part->iov_base, part->iov_len);
	return of_libc(PTRACE_SETREGSET, pid, what, &area);
}

/* Not variadic as in libc's header: all four are passed in registers either way. */
long margay_ptrace(long request, long pid, void *what, void *data) __asm__("ptrace");

long margay_ptrace(long request, long pid, void *what, void *data)
{
	long answer = of_libc(request, pid, what, data);

	if (answer < 0 && errno == EFAULT && request == PTRACE_SETREGSET && (long)what == NT_X86_XSTATE)
		return write_whole(pid, what, data);
	return answer;
}
