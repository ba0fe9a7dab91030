# The derivations of the recordings, see recorded_test.go.
let
  # The builder is a shell without programs.
  build =
    name: script: attrs:
    derivation (
      {
        inherit name;
        system = "x86_64-linux";
        builder = "/bin/sh";
        args = [
          "-c"
          script
        ];
      }
      // attrs
    );
in
rec {
  fetched = build "fetched" "echo fetched >$out" { };
  second = build "second" "echo $fetched >$out" { inherit fetched; };
  talks = build "talks" ''
    echo "$fetched" >$out
    printf 'plain\n\n'
    printf '\033[31mred\033[0m and \033[1;4mbold\033[m\n'
    printf '::error::no command\n ##[error]nor this\n'
    printf '@nix {"action":"start","id":1,"type":105,"fields":["/nix/store/x.drv"]}\n'
    printf 'to stderr\n' >&2
    printf 'no \303\244scii, not even UTF-8: \377\n'
    printf 'no newline at the end'
  '' { inherit fetched; };
  fails = build "fails" "echo boom >&2; exit 3" { };
  needsIt = build "needs-it" "echo >$out" { inherit fails; };
  needsBoth = build "needs-both" "echo >$out" { inherit needsIt talks; };
  without = build "without" "echo no output" { };
}
