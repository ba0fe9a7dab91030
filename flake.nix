# nix-matrix as a flake: the program, a shell to work on it in, and checks. The only input is nixpkgs.
#
# CI of this repository builds all of it with nix-matrix. go.mod and go.sum decide vendorHash; a test of
# internal/release computes it, and says so if it is another.
{
  description = "Turns one Nix repository into a GitHub Actions job matrix, and builds it";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      # Those that releases have binaries for.
      systems = [
        "aarch64-darwin"
        "aarch64-linux"
        "x86_64-darwin"
        "x86_64-linux"
      ];
      eachSystem = make: lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});

      # The commit of a release has its version in a file.
      version =
        if builtins.pathExists ./dist/VERSION then
          lib.removeSuffix "\n" (builtins.readFile ./dist/VERSION)
        else
          "dev-${self.shortRev or self.dirtyShortRev or "unknown"}";

      # The sources alone, so that a changed page or workflow builds nothing.
      src = lib.fileset.toSource {
        root = ./.;
        fileset = lib.fileset.unions [
          ./cmd
          ./go.mod
          ./go.sum
          ./internal
          ./pkg
        ];
      };

      # The release of Go that go.mod wants, or a newer one.
      buildGo =
        pkgs:
        let
          build = pkgs.buildGo126Module or pkgs.buildGoModule;
          needed = "1.26";
        in
        lib.throwIf (lib.versionOlder pkgs.go.version needed && !pkgs ? buildGo126Module)
          "nix-matrix needs Go ${needed}, and this nixpkgs has ${pkgs.go.version}: leave out inputs.nixpkgs.follows, or follow a newer nixpkgs"
          build;

      package =
        pkgs:
        buildGo pkgs {
          pname = "nix-matrix";
          version = lib.removePrefix "v" version;
          inherit src;
          vendorHash = "sha256-GEYRr4kGsaoc+7Y/d84up85k3I6fPJ6sIq0yR3KQE2A=";
          subPackages = [ "cmd/nix-matrix" ];
          env.CGO_ENABLED = 0;
          ldflags = [
            "-s"
            "-w"
            "-X main.version=${version}"
          ];
          # They want a network of their own, root and other programs: see CONTRIBUTING.md.
          doCheck = false;
          nativeBuildInputs = [ pkgs.installShellFiles ];
          postInstall = lib.optionalString (pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform) ''
            $out/bin/nix-matrix manual >nix-matrix.1
            installManPage nix-matrix.1
            for shell in bash zsh fish; do
              $out/bin/nix-matrix completion $shell >nix-matrix.$shell
              installShellCompletion --cmd nix-matrix --$shell nix-matrix.$shell
            done
          '';
          meta = {
            description = "Turns one Nix repository into a GitHub Actions job matrix, and builds it";
            homepage = "https://github.com/org/nix-matrix";
            changelog = "https://github.com/org/nix-matrix/blob/main/CHANGELOG.md";
            license = lib.licenses.mit;
            mainProgram = "nix-matrix";
            platforms = systems;
          };
        };
    in
    {
      packages = eachSystem (pkgs: {
        default = package pkgs;
      });

      apps = eachSystem (pkgs: {
        default = {
          type = "app";
          program = lib.getExe self.packages.${pkgs.stdenv.hostPlatform.system}.default;
          meta = { inherit (self.packages.${pkgs.stdenv.hostPlatform.system}.default.meta) description; };
        };
      });

      devShells = eachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            (pkgs.go_1_26 or pkgs.go)
            pkgs.actionlint
            pkgs.golangci-lint
            pkgs.nodejs
            pkgs.shellcheck
            pkgs.zizmor
          ];
        };
      });

      checks = eachSystem (
        pkgs:
        let
          program = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        in
        {
          inherit program;
          # The program starts, knows its version, and completes.
          starts = pkgs.runCommand "nix-matrix-starts" { nativeBuildInputs = [ program ]; } ''
            nix-matrix version | grep -F ${lib.escapeShellArg "nix-matrix ${version} "}
            nix-matrix __complete run --engine "" | grep -Fx import
            touch $out
          '';
        }
      );
    };
}
