# usage: zsh -f complete.zsh DIRECTORY LINE...
#
# Prints what an interactive zsh offers at the end of each line, a word per line and
# a dot after each, with the completions in DIRECTORY.
zmodload zsh/zpty
export directory=$1 offers=$(mktemp)
shift
zpty z zsh -f -i
# What is offered passes through compadd; with -O, -A and -D it is only asked.
zpty -w z 'compadd() {
    if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
      local -a words; builtin compadd -A words "$@"
      if (( $#words )); then print -rl -- $words >>$offers; fi
    fi
    builtin compadd "$@"
  }
  over() { print . >>$offers; zle kill-buffer }
  zle -N over
  bindkey "^I" complete-word
  bindkey "^X" over
  fpath=($directory $fpath); autoload -U compinit; compinit -u -D'
done=0
for line; do
  zpty -w -n z "$line"$'\t\x18'
  (( done++ ))
  for (( n = 0; n < 100 && $(grep -cx '\.' $offers) < done; n++ )); do
    sleep .05
    while zpty -r -t z screen; do :; done # it would wait for its reader
  done
done
zpty -d z
cat $offers
rm $offers
