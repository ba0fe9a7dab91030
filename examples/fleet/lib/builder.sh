# Builds every derivation here with the shell's builtins alone: a sandbox may
# have a /bin/sh and no other program, not even a mkdir. So an output is a file.
# shellcheck shell=sh disable=SC2154 # the derivation's attributes are variables

# A busybox can tell the machine. Under emulation that is the emulated one.
case $builder in
*/busybox) machine=$("$builder" uname -m) ;;
*) machine=unknown ;;
esac

# noise KIB: hexadecimal noise that follows from the seed, in place of the
# machine code that a compiler would have made.
noise() {
  x=$((seed)) a=6364136223846793005 c=1442695040888963407 rows=$(($1 * 8))
  while [ "$rows" -gt 0 ]; do
    rows=$((rows - 1))
    printf %016x \
      $((x = x * a + c)) $((x = x * a + c)) $((x = x * a + c)) $((x = x * a + c)) \
      $((x = x * a + c)) $((x = x * a + c)) $((x = x * a + c)) $((x = x * a + c))
  done
}

# compile: what mkDerivation does if it is not told otherwise.
compile() {
  echo "compiling $size KiB for $system"
  {
    echo "$name for $system, built on $machine"
    for input in $buildInputs; do echo "needs $input"; done
    noise "$size"
  } >"$out"
  for output in $outputs; do
    [ "$output" = out ] && continue
    echo "installing $output"
    eval "file=\$$output"
    echo "The $output of $name" >"$file"
  done
}

echo "building $name"
eval "$buildCommand"
