"""``enisle completion``: scripts for shells, which ask ``enisle __complete`` for candidates."""

from __future__ import annotations

from enisle.cli import completing
from enisle.cli.command import Command, Context
from enisle.cli.flags import Options, UsageError

_BASH = r"""# bash completion for enisle: source <(enisle completion bash)
_enisle() {
    local line files="" joined="" index
    # '=' and ':' are words of their own to bash; put them back together.
    local -a words=()
    for ((index = 1; index <= COMP_CWORD; index++)); do
        case "${COMP_WORDS[index]}" in
            = | :) joined+="${COMP_WORDS[index]}" ;;
            *) if [[ $joined == *[=:] ]]; then joined+="${COMP_WORDS[index]}"
               else [[ $index -gt 1 ]] && words+=("$joined"); joined="${COMP_WORDS[index]}"; fi ;;
        esac
    done
    words+=("$joined")
    COMPREPLY=()
    while IFS= read -r line; do
        line="${line%%$'\t'*}"
        case "$line" in
            "") continue ;;
            :files) files=yes; continue ;;
            *[=:]) compopt -o nospace 2>/dev/null ;;
        esac
        # What readline has before its last break stays on the line as it is.
        [[ $joined == *[=:]* ]] && line="${line#"${joined%"${joined##*[=:]}"}"}"
        COMPREPLY+=("$line")
    done < <(enisle __complete -- "${words[@]}" 2>/dev/null)
    if [[ $files && ${#COMPREPLY[@]} -eq 0 ]]; then
        compopt -o filenames 2>/dev/null
        line="${COMP_WORDS[COMP_CWORD]}"
        mapfile -t COMPREPLY < <(compgen -f -- "${line#[=:]}")
    fi
}
complete -F _enisle enisle
"""
_ZSH = r"""#compdef enisle
# zsh completion for enisle: source <(enisle completion zsh)
_enisle() {
    local -a whole open
    local line entry files=""
    for line in "${(@f)$(enisle __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ $line == ":files" ]]; then
            files=yes
            continue
        fi
        # _describe wants NAME:WHAT, and colons of the name escaped.
        entry="${${line%%$'\t'*}//:/\\:}"
        [[ -n $entry ]] || continue
        [[ $line == *$'\t'* ]] && entry+=":${line#*$'\t'}"
        if [[ ${line%%$'\t'*} == *[=:] ]]; then open+=("$entry"); else whole+=("$entry"); fi
    done
    [[ -n $files ]] && _files
    (( $#whole )) && _describe -t values value whole -Q
    (( $#open )) && _describe -t values value open -Q -S ""
    return 0
}
if [[ ${funcstack[1]} == _enisle ]]; then _enisle "$@"; else compdef _enisle enisle; fi
"""
_FISH = r"""# fish completion for enisle: enisle completion fish | source
function __enisle_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (enisle __complete -- $words[2..-1] 2>/dev/null)
    if contains -- :files $found
        __fish_complete_path (commandline -ct)
    end
    string match -v -- :files $found
end
complete -c enisle -f -a '(__enisle_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(context: Context, options: Options, arguments: list[str]) -> None:
    """Print the script for a shell."""
    shell = arguments[0]
    if shell not in _SCRIPTS:
        raise UsageError(f"there is no completion for '{shell}': expected bash, zsh or fish")
    print(_SCRIPTS[shell], end="")


def complete(context: Context, options: Options, arguments: list[str]) -> None:
    """Print candidates for the last of the words."""
    completing.reply(arguments, context)


COMPLETION = Command(
    summary="Print the completion script of a shell",
    usage="bash|zsh|fish",
    run=completion,
    least=1,
    most=1,
    completes="shell",
    long="Put it where your shell reads it, or for now: source <(enisle completion bash)",
)
COMPLETE = Command("Candidates for completion scripts", "-- WORD...", complete)
