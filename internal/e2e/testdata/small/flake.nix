# Two machines, a home, and a package with a check, all of them small.
{
  outputs =
    { self }:
    let
      sh =
        system: name: text:
        derivation {
          inherit system name;
          builder = "/bin/sh";
          args = [ "-c" "echo '${text}' > $out" ];
        };
      host = system: name: text: { config.system.build.toplevel = sh system "nixos-system-${name}-24.11" text; };
    in
    {
      nixosConfigurations = {
        alpha = host "x86_64-linux" "alpha" "one";
        pi = host "aarch64-linux" "pi" "one";
      };
      homeConfigurations."anna@alpha".activationPackage = sh "x86_64-linux" "home-manager-generation" "one";
      packages.x86_64-linux.tool = sh "x86_64-linux" "tool" "one";
      checks.x86_64-linux.test = sh "x86_64-linux" "test" "one";
    };
}
