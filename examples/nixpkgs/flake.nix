# Real hosts, on a real nixpkgs: a NixOS system, a home and a package for each
# system. The project's own CI builds them on GitHub's runners.
{
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    home-manager = {
      url = "github:nix-community/home-manager/release-25.11";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    { nixpkgs, home-manager, ... }:
    {
      nixosConfigurations.server = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          {
            boot.loader.grub.device = "/dev/sda";
            fileSystems."/".device = "/dev/sda1";
            networking.hostName = "server";
            services.openssh.enable = true;
            system.stateVersion = "25.11";
          }
        ];
      };

      homeConfigurations."anna@laptop" = home-manager.lib.homeManagerConfiguration {
        pkgs = nixpkgs.legacyPackages.x86_64-linux;
        modules = [
          {
            home.username = "anna";
            home.homeDirectory = "/home/anna";
            home.stateVersion = "25.11";
            programs.git.enable = true;
          }
        ];
      };

      packages = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" "aarch64-darwin" ] (system: {
        inherit (nixpkgs.legacyPackages.${system}) hello;
      });
    };
}
