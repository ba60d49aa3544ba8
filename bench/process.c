/*
 * process.c - starts cfs-repl as a child, waits for it, and makes a corpus with it.
 *
 * Thread: the program's only one. Children get no terminal and die with the bench.
 */
#include "bench/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fail.h"
#include "bench/measure.h"

#define STOP_NS 30000000000ull

int bench_sibling(const char *name, char *path_out, size_t len_bytes)
{
    char self[CFSR_PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);

    if (len < 0)
        return cfsr_fail(-errno, "cannot tell where this program stands");
    self[len] = '\0';
    *strrchr(self, '/') = '\0';
    if ((size_t)snprintf(path_out, len_bytes, "%s/%s", self, name) >= len_bytes)
        return cfsr_fail(-ENAMETOOLONG, "the path of %s is too long", name);
    return 0;
}

/* In the child. */
static void redirect_output(const char *log_path)
{
    int in = open("/dev/null", O_RDWR);
    int out = log_path == NULL ? in : open(log_path, O_WRONLY | O_CREAT | O_APPEND, 0644);

    if (in < 0 || out < 0)
        _exit(126);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
}

pid_t bench_start(const char *const *arguments, const char *log_path,
                  const char *const *environment)
{
    char *argv[BENCH_ARGS_MAX + 2];
    char program[CFSR_PATH_MAX];
    unsigned count = 1;
    pid_t pid;
    int rc = bench_sibling("cfs-repl", program, sizeof program);

    if (rc < 0)
        return rc;
    if (access(program, X_OK) != 0)
        return cfsr_fail(-errno, "%s is missing: build it", program);
    argv[0] = program;
    for (; arguments[count - 1] != NULL; count++) {
        if (count > BENCH_ARGS_MAX)
            return cfsr_fail(-E2BIG, "too many arguments for %s", program);
        argv[count] = (char *)(uintptr_t)arguments[count - 1];
    }
    argv[count] = NULL;
    fflush(stdout);
    pid = fork();
    if (pid < 0)
        return cfsr_fail(-errno, "cannot start %s", program);
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_DFL);
    redirect_output(log_path);
    for (; environment != NULL && *environment != NULL; environment++)
        putenv((char *)(uintptr_t)*environment);
    execv(program, argv);
    _exit(127);
}

int bench_wait(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int bench_call(const char *const *arguments, const char *log_path)
{
    pid_t pid = bench_start(arguments, log_path, NULL);
    int status;

    if (pid < 0)
        return pid;
    status = bench_wait(pid);
    if (status != 0)
        return cfsr_fail(-CFSR_E_FAILED, "cfs-repl %s ended with status %d: see %s", arguments[0],
                         status, log_path != NULL ? log_path : "its output");
    return 0;
}

int bench_stop(pid_t pid)
{
    uint64_t until_ns = cfsr_clock_monotonic_ns() + STOP_NS;
    int status;

    kill(pid, SIGTERM);
    while (cfsr_clock_monotonic_ns() < until_ns) {
        pid_t got = waitpid(pid, &status, WNOHANG);

        if (got == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (got < 0)
            return -errno;
        bench_sleep_us(5000);
    }
    kill(pid, SIGKILL);
    return bench_wait(pid);
}

static int import_tar(const struct bench_settings *settings, const char *log, uint64_t repeat)
{
    char times[24];

    snprintf(times, sizeof times, "%" PRIu64, repeat);
    return bench_call((const char *const[]){"journal", "import", "--data-dir", settings->data_dir,
                                            "--tar", settings->make_corpus, "--repeat", times,
                                            settings->with_data ? "--with-data" : NULL, NULL},
                      log);
}

static int make_site(const struct bench_settings *settings, const char *log)
{
    char lanes[16];

    snprintf(lanes, sizeof lanes, "%u", settings->lanes);
    return bench_call((const char *const[]){"init", "--data-dir", settings->data_dir, "--site-id",
                                            "1", "--name", "site-a", "--lanes", lanes, NULL},
                      log);
}

/* How often more the tar must be imported. */
static int count_missing(const struct bench_settings *settings, uint64_t *repeat_out)
{
    struct bench_corpus corpus;
    int rc = bench_corpus_open(settings->data_dir, &corpus);

    if (rc < 0)
        return rc;
    *repeat_out = 0;
    if (corpus.entries == 0)
        rc = cfsr_fail(-ENODATA, "%s gave no entry", settings->make_corpus);
    else if (corpus.entries < settings->min_records)
        *repeat_out = (settings->min_records - 1) / corpus.entries;
    bench_corpus_close(&corpus);
    return rc;
}

int bench_make_corpus(const struct bench_settings *settings)
{
    char identity[CFSR_PATH_MAX + 16], log[CFSR_PATH_MAX];
    uint64_t repeat = 0;
    int rc;

    snprintf(identity, sizeof identity, "%s/cluster", settings->data_dir);
    if (settings->make_corpus[0] == '\0' || access(identity, F_OK) == 0)
        return 0;
    rc = bench_work_path(settings, "make-corpus.log", log, sizeof log);
    if (rc >= 0)
        rc = make_site(settings, log);
    if (rc >= 0)
        rc = import_tar(settings, log, 1);
    if (rc >= 0)
        rc = count_missing(settings, &repeat);
    if (rc >= 0 && repeat > 0)
        rc = import_tar(settings, log, repeat);
    return rc < 0 ? rc : bench_corpus_fill(settings->data_dir, settings->fill_bytes);
}
