# Stands in for nixpkgs.lib and home-manager.lib. A configuration is its modules
# merged by name: no option declarations, types, priorities or imports.
let
  evalModules =
    modules: pkgsFor:
    let
      config = merge "" (map load modules);
      pkgs = pkgsFor config;

      load =
        file:
        let
          module = import file;
        in
        if builtins.isFunction module then module { inherit config pkgs; } else module;

      merge =
        path:
        builtins.zipAttrsWith (
          name: values:
          if builtins.length values == 1 then
            builtins.head values
          else if builtins.all builtins.isList values then
            builtins.concatLists values
          else if builtins.all builtins.isAttrs values then
            merge "${path}${name}." values
          else
            throw "the option '${path}${name}' has conflicting definitions"
        );
    in
    { inherit config pkgs; };
in
{
  nixosSystem =
    { system, modules }:
    evalModules ([ ./nixos.nix ] ++ modules) (
      config: import ./packages.nix { inherit system; inherit (config.nixpkgs) overlays; }
    );

  homeManagerConfiguration =
    { pkgs, modules }:
    let
      home = evalModules ([ ./home-manager.nix ] ++ modules) (config: pkgs);
    in
    home // { inherit (home.config.home) activationPackage; };
}
