/* Hides AVX-512, AVX-VNNI and AMX from a program, so that it computes as on a processor that has AVX2 alone:

       cc -shared -fPIC -o avx2_only.so benchmarks/avx2_only.c
       LD_PRELOAD=$PWD/avx2_only.so python benchmarks/measure.py turns ours mediapipe --into turns_avx2

   Libraries ask the instruction CPUID what there is. Linux can let it fail (arch_prctl, ARCH_SET_CPUID; needs an Intel processor
   with "cpuid_fault" in /proc/cpuinfo). The handler below then answers in its place. It stays, whatever handler pytest or a
   loader process of torch installs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))

/* Leaf 7 of CPUID, subleaf 0: AVX512F DQ IFMA PF ER CD BW VL | VBMI VBMI2 VNNI BITALG VPOPCNTDQ | 4VNNIW 4FMAPS VP2INTERSECT
   AMX-BF16 FP16 AMX-TILE AMX-INT8. Subleaf 1: AVX-VNNI AVX512-BF16 | AVX-VNNI-INT8. */
static const uint32_t EBX = BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
static const uint32_t ECX = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14);
static const uint32_t EDX = BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25);
static const uint32_t EAX_1 = BIT(4) | BIT(5), EDX_1 = BIT(4);

static long allow_cpuid(long allowed) {
    return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed);
}

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *instruction = (const uint8_t *)registers[REG_RIP];
    uint32_t eax = registers[REG_RAX], ecx = registers[REG_RCX], ebx, edx, leaf = eax, subleaf = ecx;
    (void)info;
    if (instruction[0] != 0x0f || instruction[1] != 0xa2) { /* another fault than CPUID's: it happens again, and ends the program */
        signal(number, SIG_DFL);
        return;
    }
    allow_cpuid(1);
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    allow_cpuid(0);
    if (leaf == 7 && subleaf == 0)
        ebx &= ~EBX, ecx &= ~ECX, edx &= ~EDX;
    if (leaf == 7 && subleaf == 1)
        eax &= ~EAX_1, edx &= ~EDX_1;
    registers[REG_RAX] = eax, registers[REG_RBX] = ebx, registers[REG_RCX] = ecx, registers[REG_RDX] = edx;
    registers[REG_RIP] += 2;
}

static int hidden; /* whether `answer` is installed */

int sigaction(int number, const struct sigaction *action, struct sigaction *old) { /* in the place of libc's */
    static int (*install)(int, const struct sigaction *, struct sigaction *);
    if (!install)
        *(void **)&install = dlsym(RTLD_NEXT, "sigaction");
    return install(number, hidden && number == SIGSEGV ? NULL : action, old);
}

__attribute__((constructor)) static void hide(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    hidden = !sigaction(SIGSEGV, &action, NULL);
    if (!hidden || allow_cpuid(0)) {
        fputs("error: this processor or kernel cannot hide features (no cpuid_fault in /proc/cpuinfo)\n", stderr);
        exit(1);
    }
}
