#include "program.h"

#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>

int main(int count, char **words)
{
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); // before anybody inside can see us (CVE-2016-9962)
    fcntl(CHANNEL, F_SETFD, FD_CLOEXEC);
    if (count != 1)
        return 1;
    if (!strcmp(words[0], "enisle-first")) {
        be_born();
        carry_out_steps();
    } else {
        enter();
    }
    become_program(words[0]);
}
