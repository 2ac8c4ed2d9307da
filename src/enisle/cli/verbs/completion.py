"""``enisle completion``: scripts for shells, which ask ``enisle __complete`` for candidates."""

from __future__ import annotations

from enisle.cli import completing
from enisle.cli.command import Command, Context
from enisle.cli.flags import Options, UsageError

_BASH = r"""# bash completion for enisle: source <(enisle completion bash)
_enisle() {
    local current="${COMP_WORDS[COMP_CWORD]}" line
    # '=' and ':' are words of their own to bash; put them back together.
    local -a words=()
    local joined="" index
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
        if [[ $line == ":files" ]]; then
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "${current#=}")
            return
        fi
        [[ -n $line ]] || continue
        # What readline has before its last break stays on the line as it is.
        [[ $joined == *[=:]* ]] && line="${line#"${joined%"${joined##*[=:]}"}"}"
        COMPREPLY+=("$line")
    done < <(enisle __complete -- "${words[@]}" 2>/dev/null)
}
complete -F _enisle enisle
"""
_ZSH = r"""#compdef enisle
# zsh completion for enisle: source <(enisle completion zsh)
_enisle() {
    local -a found
    found=("${(@f)$(enisle __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ ${found[1]} == ":files" ]]; then
        _files
        return
    fi
    compadd -Q -- ${found:#}
}
if [[ ${funcstack[1]} == _enisle ]]; then _enisle "$@"; else compdef _enisle enisle; fi
"""
_FISH = r"""# fish completion for enisle: enisle completion fish | source
function __enisle_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (enisle __complete -- $words[2..-1] 2>/dev/null)
    if test "$found[1]" = ":files"
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $found
    end
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
    long="Put it where your shell reads it, or for now: source <(enisle completion bash)",
)
COMPLETE = Command("Candidates for completion scripts", "-- WORD...", complete)
