from __future__ import annotations

import pytest

from enisle.cli.flags import UsageError, many, option, parse, switch
from enisle.cli.run_flags import RUN_FLAGS
from enisle.cli.values import whole

FLAGS = (
    switch("interactive", "i"),
    switch("tty", "t"),
    switch("sig-proxy", "", default=True),
    many("publish", "p"),
    option("count", "n", convert=whole, default=0),
    option("name"),
)


def test_switches_are_bundled_and_the_last_takes_a_value() -> None:
    options, arguments = parse(FLAGS, ["-itp80:80", "-p", "81", "--publish=82", "-n3", "a"])
    assert (options.interactive, options.tty, options.publish, options.count) == (True, True, ["80:80", "81", "82"], 3)
    assert arguments == ["a"]


def test_switches_take_values_only_after_an_equals_sign() -> None:
    options, arguments = parse(FLAGS, ["--sig-proxy=false", "-t=0", "-i", "false"])
    assert (options.sig_proxy, options.tty, options.interactive) == (False, False, True)
    assert arguments == ["false"]


def test_values_may_look_like_flags() -> None:
    options, _ = parse(FLAGS, ["--name", "-x", "-n", "-1", "-p=80"])
    assert (options.name, options.count, options.publish) == ("-x", -1, ["80"])


def test_without_interspersing_the_first_argument_ends_flags() -> None:
    _, arguments = parse(FLAGS, ["-i", "image", "-t", "--name", "x", "--", "y"], interspersed=False)
    assert arguments == ["image", "-t", "--name", "x", "--", "y"]
    _, arguments = parse(FLAGS, ["--", "-i"], interspersed=True)
    assert arguments == ["-i"]


def test_given_flags_are_told_from_defaults() -> None:
    options, _ = parse(FLAGS, ["--tty=false"])
    assert options.given == {"tty"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nmae", "x"], "unknown flag: --nmae\nDid you mean --name?"),
        (["--zzz"], "unknown flag: --zzz"),
        (["-ix"], "unknown shorthand flag: 'x' in -ix"),
        (["--name"], "flag needs an argument: --name"),
        (["-itp"], "flag needs an argument: 'p' in -p"),
        (["-n", "x"], 'invalid argument "x" for "-n, --count" flag: \'x\' is not a whole number'),
        (["--tty=maybe"], 'invalid argument "maybe" for "-t, --tty" flag: expected true or false'),
    ],
)
def test_mistakes_are_named(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(FLAGS, words)
    assert str(caught.value) == message


def test_no_abbreviations() -> None:
    with pytest.raises(UsageError):
        parse(FLAGS, ["--inter"])


def test_run_has_no_flag_twice() -> None:
    names = [flag.name for flag in RUN_FLAGS]
    shorts = [flag.short for flag in RUN_FLAGS if flag.short]
    assert len(names) == len(set(names))
    assert len(shorts) == len(set(shorts))


def test_run_has_all_of_dockers_flags() -> None:
    docker = """add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns
        cidfile cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach
        detach-keys device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops
        disable-content-trust dns dns-option dns-search domainname entrypoint env env-file expose gpus group-add
        health-cmd health-interval health-retries health-start-interval health-start-period health-timeout hostname
        init interactive ip ip6 ipc isolation kernel-memory label label-file link link-local-ip log-driver log-opt
        mac-address memory memory-reservation memory-swap memory-swappiness mount name network network-alias
        no-healthcheck oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet
        read-only restart rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs
        tty ulimit user userns uts volume volume-driver volumes-from workdir""".split()
    assert set(docker) <= {flag.name for flag in RUN_FLAGS}
