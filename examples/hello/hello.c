/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the architecture it was compiled for, by the name that Go and container images use. */
#include <stdio.h>

#if defined __x86_64__
#define ARCHITECTURE "amd64"
#elif defined __i386__
#define ARCHITECTURE "386"
#elif defined __aarch64__
#define ARCHITECTURE "arm64"
#elif defined __arm__
#define ARCHITECTURE "arm"
#elif defined __powerpc64__ && defined __LITTLE_ENDIAN__
#define ARCHITECTURE "ppc64le"
#elif defined __s390x__
#define ARCHITECTURE "s390x"
#elif defined __riscv && __riscv_xlen == 64
#define ARCHITECTURE "riscv64"
#elif defined __mips64 && defined __MIPSEL__
#define ARCHITECTURE "mips64le"
#elif defined __loongarch64
#define ARCHITECTURE "loong64"
#else
#error "an architecture without a name here"
#endif

int main(void)
{
    return puts(ARCHITECTURE) < 0;
}
