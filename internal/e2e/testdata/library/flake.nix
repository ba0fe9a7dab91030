# A package and a check for each of four systems, all of them small.
{
  outputs =
    { self }:
    let
      texts = {
        x86_64-linux = "one";
        aarch64-linux = "one";
        x86_64-darwin = "one";
        aarch64-darwin = "one";
      };
      sh =
        system: name: text:
        derivation {
          inherit system name;
          builder = "/bin/sh";
          args = [ "-c" "echo '${text}' > $out" ];
        };
    in
    {
      packages = builtins.mapAttrs (system: text: { tool = sh system "tool" text; }) texts;
      checks = builtins.mapAttrs (system: _: { test = sh system "test" "one"; }) texts;
    };
}
