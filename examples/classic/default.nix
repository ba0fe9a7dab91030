# The machines and homes of ../fleet for those who don't use flakes: attribute
# sets in a default.nix.
#
#   nix-build examples/classic -A system.pi3
#   nix-matrix discover -f examples/classic -A home -A system
{
  # Where the hosts, modules and homes are.
  fleet ? ../fleet,
}:
let
  inherit (import (fleet + "/lib")) nixosSystem homeManagerConfiguration;

  files = map (name: fleet + "/${name}");
  host =
    system: modules:
    (nixosSystem {
      inherit system;
      modules = files modules;
    }).config.system.build.toplevel;
  homeFor =
    system: modules:
    (homeManagerConfiguration {
      pkgs = import (fleet + "/lib/packages.nix") {
        inherit system;
        overlays = [ (import (fleet + "/pkgs")) ];
      };
      modules = files modules;
    }).activationPackage;
in
{
  system = {
    recurseForDerivations = true;
    nixsl = host "x86_64-linux" [
      "hosts/nixsl"
      "modules/base.nix"
      "modules/desktop.nix"
    ];
    hetzner = host "x86_64-linux" [
      "hosts/hetzner"
      "modules/base.nix"
      "modules/server.nix"
    ];
    notado = host "x86_64-linux" [
      "hosts/notado"
      "modules/base.nix"
      "modules/server.nix"
    ];
    pi3 = host "aarch64-linux" [ "hosts/pi3" "modules/base.nix" ];
  };

  home = {
    recurseForDerivations = true;
    "anna@nixsl" = homeFor "x86_64-linux" [ "homes/anna.nix" "homes/desktop.nix" ];
    "anna@notado" = homeFor "x86_64-linux" [ "homes/anna.nix" ];
  };
}
