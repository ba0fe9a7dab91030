# Four machines, two homes and a few packages, as in many a private repository.
# Only one thing is unusual: there are no inputs. lib/ stands in for nixpkgs and
# home-manager, so that everything evaluates and builds in seconds, offline.
#
#   nix-matrix run ./examples/fleet
{
  description = "Anna's machines";

  outputs =
    { self }:
    let
      inherit (import ./lib) nixosSystem homeManagerConfiguration;

      pkgsFor =
        system:
        import ./lib/packages.nix {
          inherit system;
          overlays = [ (import ./pkgs) ];
        };
    in
    {
      nixosConfigurations = {
        nixsl = nixosSystem {
          system = "x86_64-linux";
          modules = [ ./hosts/nixsl ./modules/base.nix ./modules/desktop.nix ];
        };
        hetzner = nixosSystem {
          system = "x86_64-linux";
          modules = [ ./hosts/hetzner ./modules/base.nix ./modules/server.nix ];
        };
        notado = nixosSystem {
          system = "x86_64-linux";
          modules = [ ./hosts/notado ./modules/base.nix ./modules/server.nix ];
        };
        pi3 = nixosSystem {
          system = "aarch64-linux";
          modules = [ ./hosts/pi3 ./modules/base.nix ];
        };
      };

      homeConfigurations = {
        "anna@nixsl" = homeManagerConfiguration {
          pkgs = pkgsFor "x86_64-linux";
          modules = [ ./homes/anna.nix ./homes/desktop.nix ];
        };
        "anna@notado" = homeManagerConfiguration {
          pkgs = pkgsFor "x86_64-linux";
          modules = [ ./homes/anna.nix ];
        };
      };

      packages.x86_64-linux = rec {
        inherit (pkgsFor "x86_64-linux") backup notado website;
        default = notado;
      };
      packages.aarch64-linux = rec {
        inherit (pkgsFor "aarch64-linux") backup raspberrypi-firmware website;
        default = backup;
      };

      checks.x86_64-linux = import ./checks { pkgs = pkgsFor "x86_64-linux"; };
      checks.aarch64-linux = import ./checks { pkgs = pkgsFor "aarch64-linux"; };
    };
}
