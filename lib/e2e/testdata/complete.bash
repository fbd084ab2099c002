# usage: bash complete.bash DIRECTORY LINE...
#
# Prints what bash offers at the end of each line, a word per line and a dot
# after each, with the completions in DIRECTORY.
directory=$1
shift
for line; do
  read -ra COMP_WORDS <<<"$line"
  case $line in *' ') COMP_WORDS+=('') ;; esac
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  . "$directory/${COMP_WORDS[0]}"
  "_${COMP_WORDS[0]//-/_}"
  printf '%s\n' "${COMPREPLY[@]}" .
done
