# Builds that tell that they have started, by a file in @dir@, and then wait for a line from a pipe there, which
# nobody writes.
{
  outputs =
    { self }:
    let
      wait =
        name:
        derivation {
          inherit name;
          system = "x86_64-linux";
          builder = "/bin/sh";
          args = [ "-c" "echo > @dir@/${name}; read line < @dir@/pipe; echo 1 > $out" ];
        };
    in
    {
      nixosConfigurations.first.config.system.build.toplevel = wait "first";
      nixosConfigurations.second.config.system.build.toplevel = wait "second";
      # Evaluates as soon as it is built.
      checks.x86_64-linux.evaluation = import (wait "evaluation");
    };
}
