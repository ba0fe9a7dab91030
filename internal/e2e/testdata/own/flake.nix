# An app and a library that it needs.
{
  outputs = _: {
    packages.x86_64-linux =
      let
        sh = name: text: derivation {
          inherit name;
          system = "x86_64-linux";
          builder = "/bin/sh";
          args = [ "-c" text ];
        };
        library = sh "library" "echo the library >$out";
      in
      {
        default = sh "app" "echo the app uses ${library} >$out";
      };
  };
}
