//! Who holds an XDP hook, as far as this process may know: a program's name by its id.

use aya::programs::loaded_programs;

use super::chain;

/// A program's name; an error says why it cannot be known, such as for want of CAP_SYS_ADMIN.
pub fn program_name(id: u32) -> Result<String, String> {
    for program in loaded_programs() {
        let program = program.map_err(|error| chain(&error))?;
        if program.id() == id {
            return Ok(program.name_as_str().unwrap_or("without a name").to_owned());
        }
    }
    Err("it is gone".to_owned())
}
