# A machine, and stand-ins for three tools that deploy it. Each realises what the real one does, takes it to the machine, and
# tells the machine how it was called. As in nixpkgs, Nix builds a system rather than downloading it, if it may.
{
  outputs =
    { self }:
    let
      sh =
        name: text:
        derivation {
          inherit name;
          system = "x86_64-linux";
          builder = "/bin/sh";
          args = [ "-c" text ];
          allowSubstitutes = false;
          preferLocalBuild = true;
        };
      tool =
        name: attr:
        sh name ''
          PATH=/usr/bin:/bin
          mkdir -p $out/bin
          echo '#!/bin/sh
          set -eu
          system=$(nix build --no-link --print-out-paths ".#${attr}")
          nix copy --to ssh-ng://root@alpha.example.org "$system"
          ssh root@alpha.example.org "${name} $* switches to $system" </dev/null' >$out/bin/${name}
          chmod +x $out/bin/${name}
        '';
      system = sh "nixos-system-alpha-24.11" "echo one >$out";
    in
    {
      packages.x86_64-linux = {
        deploy-rs = tool "deploy" "deploy.nodes.alpha.profiles.system.path";
        colmena = tool "colmena" "colmenaHive.nodes.alpha.config.system.build.toplevel";
        nixos-rebuild = tool "nixos-rebuild" "nixosConfigurations.alpha.config.system.build.toplevel";
      };
      deploy.nodes.alpha.profiles.system.path = sh "activatable-nixos-system-alpha-24.11" "echo activate ${system} >$out";
      colmenaHive = { nodes = self.nixosConfigurations; };
      nixosConfigurations.alpha.config.system.build.toplevel = system;
    };
}
