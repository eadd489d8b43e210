#!/usr/bin/env python3
"""Man pages and completions, from what the program itself says of its options: deploy/manual.py BINARY DIRECTORY."""

import pathlib
import re
import subprocess
import sys


def said(binary, *words):
    done = subprocess.run([binary, *words, "--help"], capture_output=True, text=True, check=True)
    return done.stdout


def commands(text):
    listed = re.search(r"^Commands:\n((?:  .*\n?)+)", text, re.M)
    names = re.findall(r"^  ([a-z][a-z-]*)", listed.group(1), re.M) if listed else []
    return [name for name in names if name != "help"]


def options(text):
    return sorted(set(re.findall(r"(?:^|[ ,])(--[a-z][a-z-]*)", "\n".join(line for line in text.splitlines() if line.lstrip().startswith("-")))))


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in text.splitlines())


def page(binary, words, version):
    text = said(binary, *words)
    title = "-".join(["flakefarm", *words])
    first, _, rest = text.partition("\n")
    return "\n".join([
        '.TH "%s" 1 "" "flakefarm %s" "User commands"' % (title.upper(), version), ".SH NAME", "%s \\- %s" % (title, roff(first)),
        ".SH DESCRIPTION", ".nf", roff(rest.strip()), ".fi",
        ".SH SEE ALSO", "README.md and docs/ in the sources", ""])


def main():
    binary, out = sys.argv[1], pathlib.Path(sys.argv[2])
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    top = said(binary)
    names = commands(top)
    words_of = {name: " ".join(options(said(binary, name)) + commands(said(binary, name))) for name in names}
    (out / "man" / "flakefarm.1").write_text(page(binary, [], version))
    for name in names:
        (out / "man" / ("flakefarm-%s.1" % name)).write_text(page(binary, [name], version))
    bash = ["_flakefarm() {", '  local words=""', '  case "${COMP_WORDS[1]}" in']
    bash += ['    %s) words="%s" ;;' % pair for pair in words_of.items()]
    bash += ["  esac", '  [[ $COMP_CWORD -eq 1 ]] && words="%s --help --version"' % " ".join(names),
             '  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))', "}", "complete -o default -F _flakefarm flakefarm", ""]
    (out / "completions" / "flakefarm.bash").write_text("\n".join(bash))
    zsh = ["#compdef flakefarm", "local -a words", 'if (( CURRENT == 2 )); then', "  words=(%s)" % " ".join(names), "else", '  case "$words[2]" in']
    zsh = ["#compdef flakefarm", "local -a offered", "if (( CURRENT == 2 )); then", "  offered=(%s)" % " ".join(names), "else", "  case $words[2] in"]
    zsh += ["    %s) offered=(%s) ;;" % pair for pair in words_of.items()]
    zsh += ["  esac", "fi", "compadd -a offered; _files", ""]
    (out / "completions" / "_flakefarm").write_text("\n".join(zsh))
    fish = ["complete -c flakefarm -n __fish_use_subcommand -f -a '%s'" % " ".join(names)]
    for name, words in words_of.items():
        fish += ["complete -c flakefarm -n '__fish_seen_subcommand_from %s' -l %s" % (name, word[2:]) for word in words.split() if word.startswith("--")]
    (out / "completions" / "flakefarm.fish").write_text("\n".join(fish + [""]))


if __name__ == "__main__":
    main()
