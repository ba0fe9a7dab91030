# Stands in for nixpkgs: as much of it as the flake of this repository uses, with the same names and meanings. A
# Go program becomes a shell script, which answers as nix-matrix does.
{
  outputs = _: rec {
    lib = {
      genAttrs =
        names: make:
        builtins.listToAttrs (
          map (name: {
            inherit name;
            value = make name;
          }) names
        );
      fileset = {
        unions = map (path: assert builtins.pathExists path; path);
        toSource =
          { root, fileset }:
          builtins.path {
            name = "source";
            path = root;
            filter = path: _: builtins.any (part: path == toString part) fileset;
          };
      };
      removePrefix =
        prefix: text:
        let
          length = builtins.stringLength prefix;
        in
        if builtins.substring 0 length text == prefix then builtins.substring length (-1) text else text;
      removeSuffix =
        suffix: text:
        let
          length = builtins.stringLength text - builtins.stringLength suffix;
        in
        if length >= 0 && builtins.substring length (-1) text == suffix then
          builtins.substring 0 length text
        else
          text;
      throwIf = wrong: message: value: if wrong then throw message else value;
      versionOlder = a: b: builtins.compareVersions a b < 0;
      optionalString = wanted: text: if wanted then text else "";
      escapeShellArg = text: "'${text}'";
      getExe = package: "${package}/bin/${package.meta.mainProgram}";
      licenses.mit.spdxId = "MIT";
    };

    legacyPackages =
      lib.genAttrs
        [
          "aarch64-darwin"
          "aarch64-linux"
          "x86_64-darwin"
          "x86_64-linux"
        ]
        (
          system:
          let
            build =
              name: inputs: more: script:
              derivation (
                {
                  inherit name system;
                  PATH = builtins.concatStringsSep ":" (map (i: "${i}/bin") inputs ++ [ "/usr/bin:/bin" ]);
                  builder = "/bin/sh";
                  args = [
                    "-ec"
                    script
                  ];
                }
                // more
              );
            tool = name: build name [ ] { } "mkdir $out";
            buildGoModule =
              args:
              build "${args.pname}-${args.version}" [ ] { inherit (args) src vendorHash; } ''
                mkdir -p $out/bin
                {
                  echo '#!/bin/sh'
                  echo 'case $1 in'
                  echo 'version) echo "nix-matrix v${args.version} linux/amd64" ;;'
                  echo '__complete) echo import ;;'
                  echo '*) echo "nix-matrix $*" ;;'
                  echo esac
                } >$out/bin/nix-matrix
                chmod +x $out/bin/nix-matrix
              ''
              // {
                inherit args;
                inherit (args) meta;
              };
          in
          {
            stdenv = {
              hostPlatform.system = system;
              buildPlatform.canExecute = _: true;
            };
            go = {
              version = "1.26.8";
            };
            buildGo126Module = buildGoModule;
            mkShell = { packages }: build "shell" packages { } "mkdir $out";
            runCommand = name: { nativeBuildInputs }: build name nativeBuildInputs { };
          }
          // lib.genAttrs [
            "actionlint"
            "go_1_26"
            "golangci-lint"
            "installShellFiles"
            "nodejs"
            "shellcheck"
            "zizmor"
          ] tool
        );
  };
}
